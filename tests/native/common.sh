# What sanitize.sh and fuzz.sh share. To be sourced in the root of the repository.
bin=$(cd "${VENV:-.venv}/bin" && pwd)

# Clang has the fuzzer, and its sanitizers look into most vector instructions.
clang=${CLANG:-$(command -v clang++-19 || command -v clang++ || echo clang++)}
if ! echo 'int main() {}' | "$clang" -fsanitize=address -x c++ - -o /dev/null 2>/dev/null; then
  echo "make sanitize and make fuzz need Clang (16 or newer) and its runtime library:" >&2
  echo "  apt-get install clang-19 libclang-rt-19-dev llvm-19" >&2
  echo "CLANG names the clang++ to use where it has another name." >&2
  exit 1
fi
# Where llvm-symbolizer lies, which names the lines in a report.
export PATH=$PATH:$(dirname "$(readlink -f "$(command -v "$clang")")")

# build FOLDER SANITIZERS: the core and the programs here, in build/FOLDER.
build() {
  "$bin/cmake" -S . -B "build/$1" -G Ninja --log-level=WARNING -DNORMKIT_SANITIZE="$2" \
    -DCMAKE_CXX_COMPILER="$clang" -DCMAKE_MAKE_PROGRAM="$bin/ninja" -DPython_EXECUTABLE="$bin/python"
  "$bin/cmake" --build "build/$1"
}

# Those this CPU has: asked for another, the core chooses what it has.
instruction_sets() {
  local chosen isa
  for isa in portable avx2 avx512 avx512bf16; do
    chosen=$(NORMKIT_CPU=$isa "$bin/python" -c \
      'from normkit.kernels import cpu; print(cpu.instruction_set())')
    if [ "$chosen" = "$isa" ]; then echo "$isa"; fi
  done
}
