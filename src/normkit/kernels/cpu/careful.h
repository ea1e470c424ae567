// The norms' formulas for a group of elements that share statistics, one element at a time, for the
// rare row or channel where a step would leave the range of what the kernels compute in though the
// result does not: in double, and scaled by powers of two, which is exact.
//
// x, gain, ... are functions of the element's place in [0, n).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels.h"

namespace normkit::careful {

// A sum with what its roundings lose carried along (Neumaier).
class Sum {
 public:
  void operator+=(double v) {
    const double next = sum_ + v;
    lost_ += std::abs(sum_) >= std::abs(v) ? (sum_ - next) + v : (v - next) + sum_;
    sum_ = next;
  }
  double get() const { return sum_ + lost_; }

 private:
  double sum_ = 0, lost_ = 0;
};

template <class F>
double mean(int64_t n, const F& f) {
  Sum sum;
  for (int64_t i = 0; i < n; ++i) sum += f(i);
  return sum.get() / double(n);
}

template <class F>
double largest(int64_t n, const F& f) {
  double most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(f(i)));
  return most;
}

template <class F>
bool all_finite(int64_t n, const F& f) {
  for (int64_t i = 0; i < n; ++i)
    if (!std::isfinite(f(i))) return false;
  return true;
}

// f 2^-exponent has no value beyond 2.
inline int exponent_of(double most) {
  return most > 0 && std::isfinite(most) ? std::ilogb(most) : 0;
}

// The sum of f times a factor of moderate size.
template <class F, class Factor>
double total(int64_t n, const F& f, const Factor& factor) {
  const int exponent = exponent_of(largest(n, f));
  Sum sum;
  for (int64_t i = 0; i < n; ++i) sum += std::ldexp(f(i), -exponent) * factor(i);
  return std::ldexp(sum.get(), exponent);
}

// Which norm: where eps stands, and whether the mean is subtracted.
struct Norm {
  double eps;
  bool centred = true, outside = false;
};

// x_hat = ((x 2^-exponent - mean) - residual) * rstd 2^(exponent - root_exponent): x is scaled by
// its own size, the root by the larger of x's spread and eps.
struct Group {
  int exponent = 0, root_exponent = 0;
  double mean = 0, residual = 0, var = 0, rstd = 0;
  double slope = 1;  // of the root: (sqrt(var) + eps) / sqrt(var) where eps stands outside it

  double down(double v) const { return std::ldexp(v, -exponent); }
  // Of moderate size, and x_hat 2^-hat_exponent.
  double scaled_x_hat(double x) const { return ((down(x) - mean) - residual) * rstd; }
  int hat_exponent() const { return exponent - root_exponent; }
  double x_hat(double x) const { return std::ldexp(scaled_x_hat(x), hat_exponent()); }

  // As they are without the scaling.
  Mean<double> true_mean() const {
    return split_mean<double>(std::ldexp(mean, exponent), std::ldexp(residual, exponent));
  }
  double true_rstd() const { return std::ldexp(rstd, -root_exponent); }
  double true_var() const { return std::ldexp(var, 2 * root_exponent); }

  // From a variance that is scaled by 2^(-2 of) instead of as the root is.
  void set_root(double scaled_var, int of, const Norm& norm) {
    const double beside = norm.outside ? norm.eps : std::sqrt(norm.eps);
    root_exponent =
        std::max(exponent_or(kNone, std::sqrt(scaled_var), of), exponent_or(kNone, beside, 0));
    if (root_exponent == kNone) root_exponent = 0;
    var = std::ldexp(scaled_var, 2 * (of - root_exponent));
    const double root = std::sqrt(var), eps = std::ldexp(norm.eps, -root_exponent);
    if (norm.outside) {
      rstd = 1 / (root + eps);
      slope = root > 0 ? (root + eps) / root : 0;
    } else {
      rstd = 1 / std::sqrt(var + std::ldexp(eps, -root_exponent));
    }
  }

 private:
  static constexpr int kNone = -1000000;
  static int exponent_or(int otherwise, double v, int scaled_by) {
    return v > 0 && std::isfinite(v) ? std::ilogb(v) + scaled_by : otherwise;
  }
};

// With the statistics of x.
template <class X>
Group measured(int64_t n, const X& x, const Norm& norm) {
  Group g;
  g.exponent = exponent_of(largest(n, x));
  if (norm.centred) {
    // Relative to one of them: equal elements are then their mean, to the last place.
    const double first = g.down(x(0));
    const auto centre =
        split_mean<double>(first, mean(n, [&](int64_t i) { return g.down(x(i)) - first; }));
    g.mean = centre.mean;
    g.residual = centre.residual;
  }
  const double var = mean(n, [&](int64_t i) {
    const double d = (g.down(x(i)) - g.mean) - g.residual;
    return d * d;
  });
  g.set_root(var, g.exponent, norm);
  return g;
}

// With given ones.
template <class X>
Group given(int64_t n, const X& x, double mean, double var, double eps) {
  Group g;
  g.exponent = exponent_of(std::max(largest(n, x), std::abs(mean)));
  g.mean = g.down(mean);
  g.set_root(var, 0, {eps});
  return g;
}

// write(i, y)
template <class X, class Gain, class Bias, class Write>
void normalize(const Group& g, int64_t n, const X& x, const Gain& gain, const Bias& bias,
               const Write& write) {
  for (int64_t i = 0; i < n; ++i) write(i, std::fma(g.x_hat(x(i)), gain(i), bias(i)));
}

// write(i, grad_x): of a group whose statistics depend on x, or are constants.
template <class G, class X, class Gain, class Write>
void differentiate(const Group& g, bool constant, bool centred, int64_t n, const G& grad_y,
                   const X& x, const Gain& gain, const Write& write) {
  const int upstream = exponent_of(largest(n, grad_y)), gained = exponent_of(largest(n, gain));
  const auto gw = [&](int64_t i) {
    return std::ldexp(grad_y(i), -upstream) * std::ldexp(gain(i), -gained);
  };
  const auto gw_x_hat = [&](int64_t i) { return gw(i) * g.x_hat(x(i)); };
  const double shift = constant || !centred ? 0 : mean(n, gw);
  const double pull = constant ? 0 : mean(n, gw_x_hat) * g.slope;
  for (int64_t i = 0; i < n; ++i) {
    const double rest = constant ? gw(i) : (gw(i) - shift) - g.x_hat(x(i)) * pull;
    write(i, std::ldexp(g.rstd * rest, upstream + gained - g.root_exponent));
  }
}

}  // namespace normkit::careful
