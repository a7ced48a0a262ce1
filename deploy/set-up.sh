#!/bin/sh
# Sets up .venv, for make: `set-up.sh run` what the service needs, `set-up.sh test` what tests, linters and benches need
# besides, `set-up.sh bench` the modules again, optimised as they are shipped. Looks first whether the machine has what
# that takes, and installs nothing outside of .venv.
#
# PYTHON: the interpreter to set up with. VENV: where. TICK: seconds after which a step says that it is still at work.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TICK=${TICK:-10}
OLDEST="3, 11"

fail() {
    echo "set-up: $*" >&2
    exit 1
}

# One line says all that is missing, before anything is made.
look() {
    command -v "$PYTHON" >/dev/null 2>&1 ||
        fail "needs Python $(dotted) or later; there is no $PYTHON here (PYTHON=... names another)"
    "$PYTHON" -c "import sys; sys.exit(sys.version_info < ($OLDEST))" 2>/dev/null ||
        fail "needs Python $(dotted) or later; $PYTHON is $("$PYTHON" -V 2>&1) (PYTHON=... names another)"
    missing= packages=
    "$PYTHON" -c "import venv, ensurepip" 2>/dev/null || lacks "Python's venv" python3-venv
    cc=${CC:-$("$PYTHON" -c "import sysconfig; print(sysconfig.get_config_var('CC') or 'cc')")}
    if ! command -v "${cc%% *}" >/dev/null 2>&1; then
        lacks "a C compiler (${cc%% *})" gcc
    elif ! echo "#include <limits.h>
#include <stdio.h>" | $cc -fsyntax-only -x c - 2>/dev/null; then
        lacks "the C library's headers" libc6-dev
    fi
    headers=$("$PYTHON" -c "import sysconfig; print(sysconfig.get_path('include'))")
    [ -e "$headers/Python.h" ] || lacks "Python's headers ($headers/Python.h)" python3-dev
    [ -z "$missing" ] || fail "needs $missing; on Debian: apt-get install$packages"
}

dotted() { echo "$OLDEST" | sed 's/, /./'; }

lacks() {
    missing="$missing${missing:+, }$1"
    packages="$packages $2"
}

# A step is announced, and says from time to time that it lives.
step() {
    what=$1
    shift
    echo "set-up: $what"
    "$@" &
    job=$!
    trap 'kill $job 2>/dev/null' INT TERM
    (
        passed=0
        while sleep "$TICK" >/dev/null 2>&1 && kill -0 $job 2>/dev/null; do
            passed=$((passed + TICK))
            echo "set-up: $what: $passed s"
        done
    ) &
    ticker=$!
    status=0
    wait $job || status=$?
    kill $ticker 2>/dev/null || true
    wait $ticker 2>/dev/null || true
    [ $status -eq 0 ] || fail "failed: $what"
}

# Python brings a pip with it as a wheel. Unpacked into .venv it would be compiled as a whole, only to be replaced: it is
# run as it is, once, to install the one of requirements.lock, which looks through the lists of files in half the time.
environment() {
    bundled=$("$PYTHON" -c "
import ensurepip, glob, sysconfig
folders = sysconfig.get_config_var('WHEEL_PKG_DIR'), ensurepip.__path__[0] + '/_bundled'
print(next((wheel for folder in folders if folder for wheel in glob.glob(folder + '/pip-*.whl')), ''))")
    "$PYTHON" -m venv ${bundled:+--without-pip} "$VENV"
    sed -n "/^pip==/,/# via/p" requirements.lock | PYTHONPATH=$bundled pip --requirement /dev/stdin
}

pip() { "$VENV/bin/python" -m pip --quiet --disable-pip-version-check install --no-compile "$@"; }

compile() {
    RELAY_GATEWAY_MODULES=$1 RELAY_GATEWAY_BUILD=quick "$VENV/bin/python" setup.py --quiet build_ext --inplace
}

optimise() { "$VENV/bin/python" setup.py --quiet build_ext --inplace --force; }

case ${1:-} in
run)
    look
    step "a virtual environment in $VENV, with $("$PYTHON" -V)" environment
    step "the packages of requirements.lock" pip -r requirements.lock
    step "compiling the gateway's modules" compile gateway
    # what setuptools warns of concerns who packages it, not who sets it up
    PYTHONWARNINGS=ignore RELAY_GATEWAY_MODULES=none pip --no-deps --no-build-isolation --editable .
    ;;
test)
    step "the packages of requirements-test.lock" pip -r requirements-test.lock
    step "compiling the bench suite's modules" compile all
    ;;
bench)
    step "compiling the modules as they are shipped" optimise
    ;;
*)
    fail "usage: set-up.sh run|test|bench"
    ;;
esac
