// The kernels of one instruction set, gathered into its tables.
#pragma once

#include "channel_numbers.h"
#include "floor.h"
#include "interleaved_norm.h"
#include "planar_norm.h"
#include "row_backward.h"
#include "row_forward.h"

namespace normkit::NORMKIT_ISA {

template <class T>
constexpr Kernels<T> make_table() {
  return {
      kApart<T> ? 2 * kLanes<float> : 0,
      &widen_all<T>,
      &all_finite<T>,
      &add_partials<accumulate_t<T>>,
      &row_forward<T>,
      &row_backward<T>,
      &channel_moments<T>,
      &channel_numbers<accumulate_t<T>>,
      &gradient_numbers<accumulate_t<T>>,
      &gradient_pull<accumulate_t<T>>,
      &planar_sums<T>,
      &planar_apply<T>,
      &planar_gradient_sums<T>,
      &planar_gradient<T>,
      &planar_fixed_gradient<T>,
      &interleaved_sums<T>,
      &interleaved_apply<T>,
      &interleaved_gradient_sums<T>,
      &interleaved_gradient<T>,
      &interleaved_fixed_gradient<T>,
  };
}

extern const Kernels<bfloat16> table_bfloat16 = make_table<bfloat16>();
#ifndef NORMKIT_ONLY_BFLOAT16
extern const Kernels<double> table_double = make_table<double>();
extern const Kernels<float> table_float = make_table<float>();
extern const Kernels<float16> table_float16 = make_table<float16>();
extern const Floor table_floor = {&floor_copy, &floor_triad, &floor_read, &floor_read2};
#endif

}  // namespace normkit::NORMKIT_ISA
