// How much the caches hold, and what follows for the way data takes.
#pragma once

#include "kernels.h"

namespace normkit {

// bytes: all that an operator reads and writes, and what whoever comes next reads of it. run: of
// these what is written in one piece, a row or a plane.
Traffic traffic(int64_t bytes, int64_t run);

// Likewise where so many bytes are read and written side by side, as in a copy, and none is read
// again: what is written may fill the cache.
Traffic traffic_of_copy(int64_t written, int64_t run);

}  // namespace normkit
