#!/bin/sh
# Builds what is published, for make: the sdist, and from it a wheel for every Python here that can build one, in dist/.
#
# PYTHONS: the interpreters, by names or paths; unless given, Python 3.11 to 3.14 wherever they are found. A wheel says by
# its tag on how old a C library it runs (auditwheel): that depends on the machine on which it is built.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
WORK=build/dist
VERSIONS="3.11 3.12 3.13 3.14"

# What a command says is shown where it fails.
logged() {
    log=$1
    shift
    "$@" >>"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        exit 1
    }
}

# Where an interpreter of a version is: in PATH, or where pyenv and uv keep theirs; nothing where there is none.
found() {
    for candidate in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python \
        "$HOME/.local/share/uv/python/cpython-$1".*/bin/python; do
        if "$candidate" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "dist: no Python $1 here, so no wheel for it" >&2
}

wheel() {
    name=$("$1" -c "import sys; print('cp%d%d' % sys.version_info[:2])")
    log=$WORK/$name.log
    echo "$name $1" >>"$WORK/pythons" # for tests/test_dist.py
    logged "$log" "$1" -m venv "$WORK/$name"
    logged "$log" "$WORK/$name/bin/python" -m pip install --no-compile \
        --requirement deploy/build-requirements.in --constraint "$WORK/versions.txt"
    # in the same tree for each: the C code is made once
    logged "$log" "$WORK/$name/bin/python" -m pip wheel --no-deps --no-build-isolation --wheel-dir "$WORK/$name" "$2"
    logged "$log" env PATH="$PWD/$VENV/bin:$PATH" "$VENV/bin/auditwheel" repair --wheel-dir dist "$WORK/$name"/*.whl
    rm -r "$WORK/$name"
}

rm -rf "$WORK" dist/relay_gateway-*
mkdir -p "$WORK" dist
logged "$WORK/sdist.log" "$VENV/bin/python" -m build --no-isolation --sdist --outdir dist .
tar -xzf dist/relay_gateway-*.tar.gz -C "$WORK"
sed -n 's/^\([a-z0-9_.-]*==[^ ]*\) .*/\1/p' requirements.lock >"$WORK/versions.txt"
[ -n "${PYTHONS:-}" ] || PYTHONS=$(for version in $VERSIONS; do found "$version"; done)
for python in $PYTHONS; do
    echo "dist: a wheel for $("$python" -V)"
    wheel "$python" "$(ls -d "$WORK"/relay_gateway-*/)"
done
ls dist/relay_gateway-*.tar.gz dist/relay_gateway-*.whl
