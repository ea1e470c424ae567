#define NORMKIT_ISA avx2
#define NORMKIT_VECTOR_BYTES 32
#include "table.h"
