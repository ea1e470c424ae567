// AVX-512 with conversions to bfloat16: nothing else differs.
#define NORMKIT_ISA avx512bf16
#define NORMKIT_VECTOR_BYTES 64
#define NORMKIT_ONLY_BFLOAT16
#include "table.h"
