#!/usr/bin/env bash
# `make sanitize`: the kernels by themselves, then the whole core under the tests in Python.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/native/common.sh
build thread thread
build address address,undefined

NORMKIT_CPU=portable build/thread/tests/native/threads
for isa in $(instruction_sets); do
  NORMKIT_CPU=$isa build/address/tests/native/sweep
done

# on_core FOLDER RUNTIME FILES: tests in Python on the core built there. What PyTorch and Python leave
# behind at exit is theirs. Nothing is captured: what a sanitizer says as it ends the run would be lost.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1"
on_core() {
  LD_PRELOAD=$("$clang" -print-file-name="libclang_rt.$2-$(uname -m).so") \
    NORMKIT_CORE=$PWD/build/$1/_core.abi3.so "$bin/python" -m pytest \
    --capture=no -p tests.native.sanitized_core "${@:3}"
}
memory=$(echo tests/functional/test_{edges,layouts,strides}.py)
others=$(echo tests/functional/test_{autograd,determinism,errors,running_statistics,variants}.py)
threads=tests/kernels/test_python_threads.py
on_core address asan $memory $others $threads
for isa in $(instruction_sets); do
  NORMKIT_CPU=$isa on_core address asan $memory
done
# PyTorch's own threads wait for each other in ways that ThreadSanitizer is not told of.
OMP_NUM_THREADS=1 NORMKIT_CPU=portable on_core thread tsan $threads

echo "make sanitize: clean, $SECONDS s"
