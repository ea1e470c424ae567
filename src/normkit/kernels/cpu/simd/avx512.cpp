#define NORMKIT_ISA avx512
#define NORMKIT_VECTOR_BYTES 64
#include "table.h"
