// A row norm's formulas in extended precision, whose range no square of a double leaves: what the
// kernels must give for every finite row, where the formula has a value and the dtype holds it.
#pragma once

#include "case.h"

namespace normkit::native {

// As tests/tolerances.py has them, in units of what a row is computed in.
template <class A>
constexpr double kOutputUnits = std::is_same_v<A, double> ? 16 : 4;
template <class A>
constexpr double kGradientUnits = std::is_same_v<A, double> ? 16 : 8;

// Relative to the first element: where all are nearly equal, nothing of the mean is lost.
template <class T>
class ExactRow {
 public:
  Real var = 0, rstd, slope = 1;
  Real furthest = 0;  // from the mean

  ExactRow(const Case& c, const T* x) : x_(x), first_(c.centred ? real(x[0]) : 0) {
    for (int64_t i = 0; c.centred && i < c.n; ++i) mean_ += (real(x[i]) - first_) / Real(c.n);
    for (int64_t i = 0; i < c.n; ++i) {
      var += d(i) * d(i) / Real(c.n);
      furthest = std::max(furthest, std::fabs(d(i)));
    }
    const Real root = std::sqrt(var);
    rstd = 1 / (c.outside ? root + c.eps : std::sqrt(var + c.eps));
    if (c.outside) slope = root > 0 ? (root + c.eps) / root : 0;
  }
  bool has_value() const { return std::isfinite(rstd); }
  Real x_hat(int64_t i) const { return d(i) * rstd; }
  // The mean of doubles has itself roundings, of the size of what is furthest from it.
  Real x_hat_off() const {
    return std::is_same_v<accumulate_t<T>, double> ? furthest * rstd : Real(0);
  }
  // How far a mean that was kept as these two is from right.
  Real off(Real mean, Real residual) const { return (mean - first_ - mean_) + residual; }

 private:
  const T* x_;
  Real first_, mean_ = 0;
  Real d(int64_t i) const { return (real(x_[i]) - first_) - mean_; }
};

// A row of results, made of terms of this size. A half is rounded once more at the end.
template <class T>
void check_result_row(const T* found, const std::vector<Real>& right, Real size, double units,
                      const char* what, int64_t row) {
  using A = accumulate_t<T>;
  Real largest = 0;
  for (const Real r : right) largest = std::max(largest, std::fabs(r));
  const Real half = sizeof(T) < sizeof(A) ? unit<T>(largest) : 0;
  const Real allowed = units * unit<A>(size) + half;
  // Where a term is beyond the range, so may be its rounding.
  if (!(largest + allowed < kLargest<T> / 2 && size < kLargest<A> / 2)) return;
  const int64_t n = int64_t(right.size());
  for (int64_t i = 0; i < n; ++i) check_within(found[i], right[i], allowed, what, row * n + i);
}

}  // namespace normkit::native
