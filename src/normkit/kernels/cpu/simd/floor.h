// The floor of every measurement: the fewest bytes a norm must move, moved and nothing else done.
#pragma once

#include "loops.h"

namespace normkit::NORMKIT_ISA {

// f(i) for every vector of n elements, four at a time; what is left over is not worth the code.
template <class Body>
NORMKIT_INLINE inline void whole_vectors(int64_t n, Body&& body) {
  constexpr int L = kLanes<float>;
  for (int64_t i = 0; i + 4 * L <= n; i += 4 * L)
    for (int k = 0; k < 4; ++k) body(k, i + k * L);
}

template <Traffic kTraffic>
inline void copy_to(const float* from, float* to, int64_t n) {
  whole_vectors(n, [&](int, int64_t i)
                       NORMKIT_INLINE { store_to<kTraffic>(to + i, load(from + i), Full{}); });
}

template <Traffic kTraffic>
inline void triad_to(const float* a, const float* b, float* to, int64_t n) {
  whole_vectors(n, [&](int, int64_t i) NORMKIT_INLINE {
    store_to<kTraffic>(to + i, load(a + i) + load(b + i), Full{});
  });
}

inline void floor_copy(const float* from, float* to, int64_t n, Traffic traffic) {
  with_traffic(traffic, [&](auto traffic) { copy_to<traffic.value>(from, to, n); });
}

inline void floor_triad(const float* a, const float* b, float* to, int64_t n, Traffic traffic) {
  with_traffic(traffic, [&](auto traffic) { triad_to<traffic.value>(a, b, to, n); });
}

inline double floor_read(const float* a, int64_t n) {
  Vec<float> sum[4] = {};
  whole_vectors(n, [&](int k, int64_t i) NORMKIT_INLINE { sum[k] += load(a + i); });
  return add_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

inline double floor_read2(const float* a, const float* b, int64_t n) {
  Vec<float> sum[4] = {};
  whole_vectors(n, [&](int k, int64_t i) NORMKIT_INLINE { sum[k] += load(a + i) + load(b + i); });
  return add_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

}  // namespace normkit::NORMKIT_ISA
