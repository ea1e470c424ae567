// Every kernel, called by its number. NORMKIT_CPU names the instruction set.
#pragma once

#include "finish_checks.h"

namespace normkit::native {

template <class T>
void check(Kernel kernel, const Case& c, Source& source) {
  using Check = void (*)(const Kernels<T>&, const Case&, Source&);
  static constexpr Check kChecks[kKernels] = {
      check_widen<T>,
      check_all_finite<T>,
      check_add_partials<T>,
      check_row_forward<T>,
      check_row_backward<T>,
      check_channel_moments<T>,
      check_channel_numbers<T>,
      check_planar_sums<T>,
      check_planar_apply<T>,
      check_planar_gradient_sums<T>,
      check_planar_gradient<T>,
      check_planar_fixed_gradient<T>,
      check_interleaved_sums<T>,
      check_interleaved_apply<T>,
      check_interleaved_gradient_sums<T>,
      check_interleaved_gradient<T>,
      check_interleaved_fixed_gradient<T>,
  };
  c.announce(instruction_set(), kName<T>, kernel);
  kChecks[int(kernel)](kernels<T>(), c, source);
}

inline bool of_rows(Kernel k) { return k == Kernel::row_forward || k == Kernel::row_backward; }
inline bool planar(Kernel k) {
  return k >= Kernel::planar_sums && k <= Kernel::planar_fixed_gradient;
}

// What any case may ask for, whatever its length and place.
inline void choose_flags(Case& c, Source& source) {
  for (bool* flag : {&c.centred, &c.outside, &c.gain, &c.bias, &c.save, &c.exact, &c.grad_x,
                     &c.grad_gain, &c.grad_bias, &c.apart})
    *flag = source.coin();
  constexpr double kEps[] = {1e-5, 1e-5, 0.3, 0, 1e-30, 1e-300};
  c.eps = kEps[source.below(std::size(kEps))];
  c.block_rows = 1 + int64_t(source.below(9));
  c.x_gap = source.coin() ? int64_t(source.below(9)) : 0;
  c.grad_gap = source.coin() ? int64_t(source.below(9)) : 0;
}

}  // namespace normkit::native
