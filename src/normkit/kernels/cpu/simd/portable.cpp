#define NORMKIT_ISA portable
#define NORMKIT_VECTOR_BYTES 16
#include "table.h"
