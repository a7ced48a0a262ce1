# `make run` and `make test` do all their set-up on a fresh clone; `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TYPED   := $(filter-out gateway/_fastpath.pxd,$(wildcard gateway/*.pxd gateway/*/*.pxd gateway/*/*/*.pxd))
SOURCES := $(TYPED) $(TYPED:.pxd=.py) $(wildcard gateway/_fastpath.p* gateway/fastpath/*.pxi bench/*.pyx bench/wire/*.pxi)

.DEFAULT_GOAL := help
.PHONY: help run test bench lint fuzz lock clean debian-packages

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml setup.py $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --quiet --disable-pip-version-check install -r requirements.lock
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY)  ## set up and run the gateway with its quickstart policy (relays into ./var/maildir)
	$(BIN)/relay-gateway run --policy deploy/quickstart.lua

debian-packages:
	@deploy/test-packages.sh

test: $(READY) debian-packages  ## set up and run every test, linter and type check
	$(BIN)/python -m pytest

bench: $(READY)  ## measure the gateway beside what is installed here (about 6 minutes); BENCH="--full" and the like
	@PATH="$$PATH:/usr/sbin" command -v smtp-sink >/dev/null || echo "few peers here: bench/setup-peers.sh installs more" >&2
	$(BIN)/relay-gateway bench run $(BENCH)

lint: $(READY)  ## only the linters and type checks
	$(BIN)/python -m pytest tests/test_sourcecode.py

fuzz: $(READY)  ## fuzz the report scanner for FUZZ_SECONDS (default 600); needs clang
	tests/fuzz/run.sh fuzz_report $(or $(FUZZ_SECONDS),600)

lock: $(READY)  ## refresh requirements.lock from pyproject.toml
	$(BIN)/python -m pip --quiet install uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    --all-extras --output-file requirements.lock pyproject.toml deploy/build-requirements.in

clean:  ## remove everything that set-up and builds made
	rm -rf $(VENV) build dist *.egg-info gateway/*.so gateway/*/*.so gateway/*/*/*.so bench/*.so $(TYPED:.pxd=.c) gateway/_fastpath.c bench/_*.c
