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
inline double one(int64_t) { return 1; }

// Which norm: where eps stands, and whether the mean is subtracted.
struct Norm {
  double eps;
  bool centred = true, outside = false;
};

// x_hat = ((x 2^-exponent - mean) - residual) * rstd 2^(exponent - root_exponent): what x is scaled
// by and what the root is are the same, but for elements that are all equal, or given statistics.
struct Group {
  int exponent = 0, root_exponent = 0;
  double mean = 0, residual = 0, var = 0, rstd = 0;
  double slope = 1;  // of the root: (sqrt(var) + eps) / sqrt(var) where eps stands outside it

  double down(double v) const { return std::ldexp(v, -exponent); }
  double x_hat(double x) const {
    return std::ldexp(((down(x) - mean) - residual) * rstd, exponent - root_exponent);
  }

  // As they are without the scaling.
  Mean<double> true_mean() const {
    return split_mean<double>(std::ldexp(mean, exponent), std::ldexp(residual, exponent));
  }
  double true_rstd() const { return std::ldexp(rstd, -root_exponent); }
  double true_var() const { return std::ldexp(var, 2 * root_exponent); }

  // Of a variance that is scaled by the root's exponent; eps must be, too.
  void set_root(const Norm& norm) {
    const double root = std::sqrt(var), eps = std::ldexp(norm.eps, -root_exponent);
    if (norm.outside) {
      rstd = 1 / (root + eps);
      slope = root > 0 ? (root + eps) / root : 0;
    } else {
      rstd = 1 / std::sqrt(var + std::ldexp(eps, -root_exponent));
    }
  }
};

// What eps is beside the root of the variance.
inline double beside_root(const Norm& norm) {
  return norm.outside ? norm.eps : std::sqrt(norm.eps);
}

// With the statistics of x.
template <class X>
Group measured(int64_t n, const X& x, const Norm& norm) {
  Group g;
  g.exponent = g.root_exponent = exponent_of(std::max(largest(n, x), beside_root(norm)));
  if (norm.centred) {
    // Relative to one of them: equal elements are then their mean, to the last place.
    const double first = g.down(x(0));
    const auto centre =
        split_mean<double>(first, mean(n, [&](int64_t i) { return g.down(x(i)) - first; }));
    g.mean = centre.mean;
    g.residual = centre.residual;
  }
  g.var = mean(n, [&](int64_t i) {
    const double d = (g.down(x(i)) - g.mean) - g.residual;
    return d * d;
  });
  if (g.var == 0) g.root_exponent = exponent_of(beside_root(norm));
  g.set_root(norm);
  return g;
}

// With given ones.
template <class X>
Group given(int64_t n, const X& x, double mean, double var, double eps) {
  Group g;
  g.exponent = exponent_of(std::max(largest(n, x), std::abs(mean)));
  g.root_exponent = exponent_of(std::sqrt(std::max(var, eps)));
  g.mean = g.down(mean);
  g.var = std::ldexp(var, -2 * g.root_exponent);
  g.set_root({eps});
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
