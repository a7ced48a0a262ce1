#!/usr/bin/env bash
# Fuzz one target for some seconds: tests/fuzz/run.sh fuzz_report 600 [libFuzzer options]. Needs clang with its
# libFuzzer (Debian: clang-14 libclang-rt-14-dev; CLANG names it). New inputs are collected in build/fuzz/TARGET.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$1 seconds=$2
shift 2
clang=${CLANG:-$(command -v clang || command -v clang-14 || true)}
[ -n "$clang" ] || { echo "make fuzz: clang not found; apt-get install clang-14 libclang-rt-14-dev" >&2; exit 1; }

venv=$PWD/.venv/bin/python
variable() { "$venv" -c "import sysconfig; print(sysconfig.get_config_var('$1'))"; }
path() { "$venv" -c "import sysconfig; print(sysconfig.get_path('$1'))"; }

mkdir -p build/fuzz/"$target"
"$clang" -g -O2 -Wno-everything -fsanitize=fuzzer,address -I"$(path include)" tests/fuzz/harness.c gateway/_fastpath.c \
    -o build/fuzz/harness -L"$(variable LIBDIR)" -Wl,-rpath,"$(variable LIBDIR)" -lpython"$(variable LDVERSION)"

seeds=()
[ "$target" != fuzz_report ] || seeds=(tests/corpus/reports/{regressions,cases,visible,adversarial})

export FUZZ_TARGET=$target PYTHONPATH=tests/fuzz:.:$(path purelib) PYTHONMALLOC=malloc
# Python keeps what it allocates until the end; only the kernels are to be looked at. What is freed is kept back for a
# while, to see who still uses it; of so many small pieces a little, or the limit of libFuzzer is reached.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=16:thread_local_quarantine_size_kb=64
exec nice build/fuzz/harness -max_total_time="$seconds" -max_len=16384 -timeout=10 -print_final_stats=1 \
    -artifact_prefix=build/fuzz/"$target"- -dict=tests/fuzz/"${target#fuzz_}".dict "$@" build/fuzz/"$target" "${seeds[@]}"
