// One call of a kernel: its shape, where its data lies, what is asked of it.
#pragma once

#include <algorithm>

#include "numbers.h"

namespace normkit::native {

enum class Kernel {
  widen,
  all_finite,
  add_partials,
  row_forward,
  row_backward,
  channel_moments,
  channel_numbers,
  planar_sums,
  planar_apply,
  planar_gradient_sums,
  planar_gradient,
  planar_fixed_gradient,
  interleaved_sums,
  interleaved_apply,
  interleaved_gradient_sums,
  interleaved_gradient,
  interleaved_fixed_gradient,
};
constexpr int kKernels = 17;
constexpr const char* kKernelNames[kKernels] = {
    "widen",
    "all_finite",
    "add_partials",
    "row_forward",
    "row_backward",
    "channel_moments",
    "channel_numbers",
    "planar_sums",
    "planar_apply",
    "planar_gradient_sums",
    "planar_gradient",
    "planar_fixed_gradient",
    "interleaved_sums",
    "interleaved_apply",
    "interleaved_gradient_sums",
    "interleaved_gradient",
    "interleaved_fixed_gradient",
};

struct Case {
  int64_t n = 1;                // elements of a row, positions of a plane, channels of a position
  int64_t rows = 1;             // or samples
  int64_t channels = 1;         // of planar data
  int64_t split = 0;            // done a second time in two parts, of which the first has so many
  int64_t block_rows = 1;       // of row_backward
  int64_t x_gap = 0;            // elements between the rows or planes of x
  int64_t grad_gap = 0;         // and of grad_y
  int64_t x = 0, grad = 0;      // how far from a line they begin, in elements;
  int64_t out = 0, again = 0;   // what is written, the first and the second time;
  int64_t numbers = 0;          // gain, bias and what else there is
  Place place = Place::within;  // of all of them
  Traffic traffic = Traffic::cached;
  bool centred = false, outside = false, gain = false, bias = false, save = false, exact = false;
  bool grad_x = false, grad_gain = false, grad_bias = false;
  bool apart = false;  // numbers per column, where the kernels like them so
  double eps = 1e-5;

  void announce(const char* isa, const char* dtype, Kernel kernel) const {
    std::snprintf(now, sizeof now,
                  "%s %s %s n=%d rows=%d channels=%d split=%d block_rows=%d gaps=%d,%d "
                  "offsets=%d,%d,%d,%d,%d place=%d streamed=%d flags=%d%d%d%d%d%d%d%d%d%d eps=%g",
                  isa, dtype, kKernelNames[int(kernel)], int(n), int(rows), int(channels),
                  int(split), int(block_rows), int(x_gap), int(grad_gap), int(x), int(grad),
                  int(out), int(again), int(numbers), int(place), traffic == Traffic::streamed,
                  centred, outside, gain, bias, save, exact, grad_x, grad_gain, grad_bias, apart,
                  eps);
  }
};

// Elements from the begin of the first to the end of the last of `count` runs of n.
inline int64_t extent(int64_t count, int64_t n, int64_t stride) {
  return count == 0 || n == 0 ? 0 : (count - 1) * stride + n;
}

// Calls f(begin, end) for all of [0, count), or for two parts.
template <class F>
void in_parts(int64_t count, int64_t split, const F& f) {
  split = std::clamp<int64_t>(split, 0, count);
  f(int64_t(0), split);
  f(split, count);
}

}  // namespace normkit::native
