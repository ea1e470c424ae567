// One decision, made when the library is loaded: which instruction set's tables serve.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

#define NORMKIT_DECLARE_TABLES(isa)              \
  namespace normkit::isa {                       \
  extern const Kernels<double> table_double;     \
  extern const Kernels<float> table_float;       \
  extern const Kernels<bfloat16> table_bfloat16; \
  extern const Kernels<float16> table_float16;   \
  extern const Floor table_floor;                \
  }

NORMKIT_DECLARE_TABLES(portable)
#ifdef NORMKIT_X86
NORMKIT_DECLARE_TABLES(avx2)
NORMKIT_DECLARE_TABLES(avx512)
namespace normkit::avx512bf16 {
extern const Kernels<bfloat16> table_bfloat16;
}
#endif

namespace normkit {
namespace {

enum class Isa { portable, avx2, avx512, avx512bf16 };
const char* const kNames[] = {"portable", "avx2", "avx512", "avx512bf16"};

Isa best() {
#ifdef NORMKIT_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return __builtin_cpu_supports("avx512bf16") ? Isa::avx512bf16 : Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    return Isa::avx2;
#endif
  return Isa::portable;
}

// NORMKIT_CPU can only ask for less than the CPU has: more would end in an illegal instruction.
Isa choose() {
  const Isa limit = best();
  const char* wanted = std::getenv("NORMKIT_CPU");
  for (int isa = 0; wanted && isa < int(limit); ++isa)
    if (!std::strcmp(wanted, kNames[isa])) return Isa(isa);
  return limit;
}

const Isa chosen = choose();

template <class Table>
const Table& pick(const Table& portable, const Table& avx2, const Table& avx512) {
  return chosen >= Isa::avx512 ? avx512 : chosen == Isa::avx2 ? avx2 : portable;
}

}  // namespace

#ifdef NORMKIT_X86
#define NORMKIT_PICK(table) return pick(portable::table, avx2::table, avx512::table)
#else
#define NORMKIT_PICK(table) return pick(portable::table, portable::table, portable::table)
#endif

template <>
const Kernels<double>& kernels() {
  NORMKIT_PICK(table_double);
}
template <>
const Kernels<float>& kernels() {
  NORMKIT_PICK(table_float);
}
template <>
const Kernels<bfloat16>& kernels() {
#ifdef NORMKIT_X86
  if (chosen == Isa::avx512bf16) return avx512bf16::table_bfloat16;
#endif
  NORMKIT_PICK(table_bfloat16);
}
template <>
const Kernels<float16>& kernels() {
  NORMKIT_PICK(table_float16);
}
const Floor& floor_kernels() { NORMKIT_PICK(table_floor); }

const char* instruction_set() { return kNames[int(chosen)]; }
int64_t vector_bytes() { return chosen >= Isa::avx512 ? 64 : chosen == Isa::avx2 ? 32 : 16; }

}  // namespace normkit
