# `make run` and `make test` do all their set-up on a fresh clone; `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-to-test
OPTIMISED := $(VENV)/.optimised
TYPED   := $(filter-out gateway/_fastpath.pxd,$(wildcard gateway/*.pxd gateway/*/*.pxd gateway/*/*/*.pxd))
SOURCES := $(TYPED) $(TYPED:.pxd=.py) $(wildcard gateway/_fastpath.p* gateway/fastpath/*.pxi)
BENCH_SOURCES := $(wildcard bench/*.pyx bench/wire/*.pxi)

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url

.DEFAULT_GOAL := help
.PHONY: help run test bench lint mutants faults clients fuzz dist dist-test container docs lock clean brokers upgrades

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml setup.py $(SOURCES)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" deploy/set-up.sh run
	@touch $@

$(READY_TO_TEST): $(READY) requirements-test.lock $(BENCH_SOURCES)
	@VENV="$(VENV)" deploy/set-up.sh test
	@touch $@

$(OPTIMISED): $(READY_TO_TEST)
	@VENV="$(VENV)" deploy/set-up.sh bench
	@touch $@

run: $(READY)  ## set up and run the gateway with its quickstart policy (relays into ./var/maildir)
	$(BIN)/relay-gateway run --policy deploy/quickstart.lua

test: $(READY_TO_TEST)  ## set up and run every test, linter and type check; as root it installs Debian packages
	@deploy/test-packages.sh
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --benchmark-disable

bench: $(OPTIMISED)  ## measure the gateway beside what is installed here (about 6 minutes); BENCH="--full" and the like
	@PATH="$$PATH:/usr/sbin" command -v smtp-sink >/dev/null || echo "few peers here: bench/setup-peers.sh installs more" >&2
	$(BIN)/relay-gateway bench run $(BENCH)

lint: $(READY_TO_TEST)  ## only the linters and type checks
	$(BIN)/python -m pytest tests/test_sourcecode.py

mutants: $(READY_TO_TEST)  ## change the contract's code in every way, and see that a test notices
	$(BIN)/python -m tests.mutants

faults: $(READY_TO_TEST)  ## do to a running gateway's fleet and spool what docs/delivery.md and spool.md list, in every way (half an hour)
	rm -rf build/faults
	FAULTS=all $(BIN)/python -m pytest tests/test_fleet_faults.py tests/test_fleet_outages.py \
	    tests/test_spool_faults.py tests/test_spool_calls.py
	$(BIN)/python -m tests.fault_report

upgrades: $(READY_TO_TEST)  ## 30,000 connections through seven upgrades, none refused (a few minutes)
	UPGRADES=30000 $(BIN)/python -m pytest -s tests/test_upgrade.py -k seven_upgrades

brokers: $(READY_TO_TEST)  ## ship records to real brokers and kill them; as root it installs RabbitMQ, and Kafka by Maven (390 MB)
	@deploy/test-packages.sh
	tests/brokers/install.sh $(VENV)/kafka
	BROKERS=$(abspath $(VENV)/kafka) $(BIN)/python -m pytest -s tests/test_shipping_brokers.py

clients: $(READY_TO_TEST)  ## send with programs that we did not write, servers among them; as root it downloads Exim and OpenSMTPD
	@deploy/test-packages.sh
	bench/setup-peers.sh
	CLIENTS=all $(BIN)/python -m pytest -rs tests/test_sending_clients.py tests/test_real_clients.py

fuzz: $(READY_TO_TEST)  ## fuzz what reads what others send or leave, FUZZ_SECONDS for each target (default 600); needs clang
	tests/fuzz/run.sh fuzz_report $(or $(FUZZ_SECONDS),600)
	tests/fuzz/run.sh fuzz_arrival $(or $(FUZZ_SECONDS),600)
	tests/fuzz/run.sh fuzz_session $(or $(FUZZ_SECONDS),600)
	tests/fuzz/run.sh fuzz_tls $(or $(FUZZ_SECONDS),600) -len_control=0 -max_len=400
	tests/fuzz/run.sh fuzz_upstream $(or $(FUZZ_SECONDS),600) -len_control=0 -max_len=64
	tests/fuzz/run.sh fuzz_files $(or $(FUZZ_SECONDS),600) -len_control=0 -max_len=64
	POLICIES=5000 $(BIN)/python -m pytest --timeout 3600 tests/test_policy_cache.py -k uncached
	MACHINE=$(or $(FUZZ_SECONDS),600) $(BIN)/python -m pytest tests/test_contract_machine.py

dist: $(READY_TO_TEST)  ## build the sdist and a manylinux wheel for each Python here, in dist/
	@VENV="$(VENV)" deploy/dist.sh

dist-test: dist  ## install each of these wheels without a compiler, and send a first message through it
	DIST=1 $(BIN)/python -m pytest tests/test_dist.py

container:  ## build the container image with buildah and run it, as root; BASE=image instead of one made with debootstrap
	deploy/container/try.sh

docs: $(READY_TO_TEST)  ## build the pages as a site in build/site, and check every link between them
	$(BIN)/mkdocs build

lock: $(READY)  ## refresh both lock files from pyproject.toml: the service's own versions are those that are tested
	$(BIN)/python -m pip --quiet install uv
	$(COMPILE) --all-extras --output-file requirements-test.lock pyproject.toml deploy/build-requirements.in
	$(COMPILE) --constraint requirements-test.lock --output-file requirements.lock \
	    pyproject.toml deploy/build-requirements.in

clean:  ## remove everything that set-up and builds made
	rm -rf $(VENV) build dist *.egg-info $(TYPED:.pxd=.c) gateway/_fastpath.c gateway/_shared.c bench/_*.c
	find gateway bench -name '*.so' -delete
