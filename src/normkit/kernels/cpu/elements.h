// Numbers of the four dtypes one at a time. Of PyTorch it needs headers only, nothing to link.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <limits>

#include "kernels.h"

namespace normkit {

// One element, exactly.
inline double element(const double* p) { return *p; }
inline double element(const float* p) { return double(*p); }
inline double element(const bfloat16* p) {
  return torch::headeronly::BFloat16(p->bits, torch::headeronly::BFloat16::from_bits());
}
inline double element(const float16* p) {
  return torch::headeronly::Half(p->bits, torch::headeronly::Half::from_bits());
}

inline uint16_t rounded(bfloat16, float value) { return torch::headeronly::BFloat16(value).x; }
inline uint16_t rounded(float16, float value) { return torch::headeronly::Half(value).x; }
inline float rounded(float, double value) { return float(value); }
inline double rounded(double, double value) { return value; }

// With one and the same NaN for all there are.
template <class A>
A canonical(A v) {
  return v == v ? v : std::numeric_limits<A>::quiet_NaN();
}

// Into an element of a kernel's output.
inline void set_element(bfloat16* to, double value) {
  to->bits = rounded(bfloat16{}, float(value));
}
inline void set_element(float16* to, double value) { to->bits = rounded(float16{}, float(value)); }
inline void set_element(float* to, double value) { *to = float(value); }
inline void set_element(double* to, double value) { *to = value; }

}  // namespace normkit
