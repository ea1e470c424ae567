// What a row kernel calls for a row that is not its own to do: RowForward's and RowBackward's
// `careful`.
#pragma once

#include "careful.h"
#include "elements.h"

namespace normkit::careful {

template <class T, class A = accumulate_t<T>>
void forward(const RowForward<T>& p, int64_t row) {
  const T* x = p.x + row * p.x_stride;
  T* y = p.y + row * p.n;
  const auto at = [&](int64_t i) { return place(i, p.n, p.run); };
  const auto value = [&](int64_t i) { return element(x + i); };
  const auto g = measured(p.n, value, {p.eps, p.centred, p.outside});
  normalize(
      g, p.n, value, [&](int64_t i) { return p.gain ? double(p.gain[at(i)]) : 1.0; },
      [&](int64_t i) { return p.bias ? double(p.bias[at(i)]) : 0.0; },
      [&](int64_t i, double v) { set_element(y + i, v); });
  const Mean<double> exact = g.true_mean();
  const Mean<A> mean = split_mean<A>(exact.mean, exact.residual);
  if (p.save.rstd) p.save.rstd[row] = -A(g.true_rstd());
  if (p.save.mean) p.save.mean[row] = mean.mean;
  if (p.save.residual) p.save.residual[row] = mean.residual;
  if (p.save.slope) p.save.slope[row] = A(g.slope);
}

template <class T, class A = accumulate_t<T>>
void backward(const RowBackward<T>& p, int64_t row, A* grad_gain, A* grad_bias) {
  const T *x = p.x + row * p.x_stride, *grad_y = p.grad_y + row * p.grad_y_stride;
  const auto value = [&](int64_t i) { return element(x + i); };
  const auto upstream = [&](int64_t i) { return element(grad_y + i); };
  const auto at = [&](int64_t i) { return place(i, p.n, p.run); };
  const auto g = measured(p.n, value, {p.eps, p.centred, p.outside});
  if (p.grad_x)
    differentiate(
        g, false, p.centred, p.n, upstream, value,
        [&](int64_t i) { return p.gain ? double(p.gain[at(i)]) : 1.0; },
        [&](int64_t i, double v) { set_element(p.grad_x + row * p.n + i, v); });
  // Each by its own exponent: beside the row's largest, the smallest would vanish.
  for (int64_t i = 0; grad_gain && i < p.n; ++i) {
    const int scale = exponent_of(std::abs(upstream(i)));
    const double scaled = std::ldexp(upstream(i), -scale) * g.scaled_x_hat(value(i));
    grad_gain[at(i)] += A(std::ldexp(scaled, scale + g.hat_exponent()));
  }
  for (int64_t i = 0; grad_bias && i < p.n; ++i) grad_bias[at(i)] += A(upstream(i));
}

}  // namespace normkit::careful
