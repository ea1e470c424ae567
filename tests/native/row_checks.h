// Kernels of row norms: run twice, whole and in parts, between sentinels; the results must be the
// same bits, and near a plain reference where the numbers are tame. How near is the business of the
// tests in Python: here the bounds are such that nothing but roundings fits in.
#pragma once

#include "case.h"

namespace normkit::native {

// What a kernel adds up in float, it adds in chains of at most some 64 terms.
constexpr double kRoundings = 16;

template <class T, class A = accumulate_t<T>>
void check_widen(const Kernels<T>& k, const Case& c, Source& source) {
  Block<T> from(c.n, c.x, c.place);
  Block<A> to(c.n, c.out, c.place);
  source.fill(from);
  k.widen(from.data(), to.data(), c.n);
  from.check("from");
  to.check("to");
  for (int64_t i = 0; i < c.n; ++i)
    if (!(real(to[i]) == real(from[i]) || std::isnan(real(from[i]))))
      fail("element %lld is %Lg, not %Lg", (long long)i, real(to[i]), real(from[i]));
}

template <class T, class A = accumulate_t<T>>
void check_add_partials(const Kernels<T>& k, const Case& c, Source& source) {
  const int64_t stride = c.n + c.x_gap;
  Block<A> partials(extent(c.rows, c.n, stride), c.x, c.place);
  Block<double> total(c.n, c.out, c.place);
  source.fill(partials);
  k.add_partials(partials.data(), c.rows, stride, c.n, total.data());
  partials.check("partials");
  total.check("total");
  for (int64_t i = 0; i < c.n; ++i) {
    double sum = 0;  // in the kernel's order, so to the bit
    for (int64_t r = 0; r < c.rows; ++r) sum += double(partials[r * stride + i]);
    if (!(total[i] == sum) && !(std::isnan(total[i]) && std::isnan(sum)))
      fail("element %lld is %g, not %g", (long long)i, total[i], sum);
  }
}

// ------------------------------------------------------------------------- forward
// What a forward pass writes.
template <class T, class A = accumulate_t<T>>
struct RowResults {
  Block<T> y;
  Block<A> rstd, mean, residual, slope;

  RowResults(const Case& c, int64_t offset)
      : y(c.rows * c.n, offset, c.place),
        rstd(c.save * c.rows, offset, c.place),
        mean(c.save * c.centred * c.rows, offset, c.place),
        residual(mean.size(), offset, c.place),
        slope(c.save * c.outside * c.rows, offset, c.place) {}

  RowStatistics<A> views() {
    const auto given = [](Block<A>& b) { return b.size() ? b.data() : nullptr; };
    return {given(rstd), given(mean), given(residual), given(slope)};
  }
  void check() const {
    y.check("y");
    rstd.check("rstd");
    mean.check("mean");
    residual.check("residual");
    slope.check("slope");
  }
  void check_same(const RowResults& other) const {
    native::check_same(y, other.y, "y, whole and in parts");
    native::check_same(rstd, other.rstd, "rstd, whole and in parts");
    native::check_same(mean, other.mean, "mean, whole and in parts");
    native::check_same(residual, other.residual, "residual, whole and in parts");
    native::check_same(slope, other.slope, "slope, whole and in parts");
  }
};

template <class T, class A = accumulate_t<T>>
void check_row(const Case& c, const T* x, const Block<A>& gain, const Block<A>& bias,
               const RowResults<T>& found, int64_t row) {
  Real mean = 0, var = 0, largest = 0, size = 0;
  for (int64_t i = 0; c.centred && i < c.n; ++i) mean += real(x[i]) / Real(c.n);
  for (int64_t i = 0; i < c.n; ++i) {
    var += (real(x[i]) - mean) * (real(x[i]) - mean) / Real(c.n);
    largest = std::max(largest, std::fabs(real(x[i])));
  }
  const Real root = std::sqrt(var);
  const Real rstd = 1 / (c.outside ? root + c.eps : std::sqrt(var + c.eps));
  const auto scale = [&](int64_t i) { return c.gain ? rstd * gain[i] : rstd; };
  const auto shift = [&](int64_t i) { return c.bias ? Real(bias[i]) : 0; };
  for (int64_t i = 0; i < c.n; ++i)
    size = std::max(size, std::fabs(largest * scale(i)) + std::fabs(shift(i)));
  for (int64_t i = 0; i < c.n; ++i)
    check_near(found.y[row * c.n + i], (real(x[i]) - mean) * scale(i) + shift(i), size, kRoundings,
               "y", row * c.n + i);
  if (!c.save) return;
  // Where the variance is next to nothing, what is left of it is roundings of the mean.
  const bool flat = root < kEpsilon<A> * largest * 64;
  if (!flat) check_near(found.rstd[row], rstd, rstd, kRoundings, "rstd", row);
  if (c.centred) check_near(found.mean[row], mean, largest, kRoundings, "mean", row);
  if (c.centred && !(std::fabs(found.residual[row]) <= kEpsilon<A> * largest))
    fail("residual %lld is %g", (long long)row, double(found.residual[row]));
  if (c.outside && !flat)
    check_near(found.slope[row], (root + c.eps) / root, (root + c.eps) / root, kRoundings, "slope",
               row);
}

template <class T, class A = accumulate_t<T>>
void check_row_forward(const Kernels<T>& k, const Case& c, Source& source) {
  const int64_t stride = c.n + c.x_gap;
  Block<T> x(extent(c.rows, c.n, stride), c.x, c.place);
  const bool with_gain = c.gain || c.bias;  // a bias without a gain is not the kernels' to serve
  Block<A> gain(with_gain * c.n, c.numbers, c.place), bias(c.bias * c.n, c.numbers, c.place);
  source.fill(x);
  source.fill(gain);
  source.fill(bias);
  Case asked = c;
  asked.gain = with_gain;
  const auto run = [&](RowResults<T>& results, int64_t split) {
    const RowForward<T> p{x.data(),
                          stride,
                          results.y.data(),
                          with_gain ? gain.data() : nullptr,
                          c.bias ? bias.data() : nullptr,
                          results.views(),
                          c.n,
                          1.0 / double(c.n),
                          c.eps,
                          c.centred,
                          c.outside,
                          c.traffic};
    in_parts(c.rows, split, [&](int64_t begin, int64_t end) {
      k.row_forward(p, begin, end);
      for (int64_t i = end * c.n; i < c.rows * c.n; ++i)
        if (!results.y.untouched(i)) fail("element %lld of a later row was written", (long long)i);
    });
    results.check();
    x.check("x");
    gain.check("gain");
    bias.check("bias");
  };
  RowResults<T> whole(c, c.out), parts(c, c.again);
  run(whole, c.rows);
  run(parts, c.split);
  whole.check_same(parts);
  for (int64_t r = 0; source.tame() && r < c.rows; ++r)
    check_row(asked, x.data() + r * stride, gain, bias, whole, r);
}

// ------------------------------------------------------------------------ backward
template <class T, class A = accumulate_t<T>>
struct RowGradients {
  Block<T> x;
  Block<A> gain, bias;

  RowGradients(const Case& c, int64_t blocks, int64_t offset)
      : x(c.grad_x * c.rows * c.n, offset, c.place),
        gain(c.grad_gain * blocks * c.n, offset, c.place),
        bias(c.grad_bias * blocks * c.n, offset, c.place) {}

  void check() const {
    x.check("grad_x");
    gain.check("grad_gain");
    bias.check("grad_bias");
  }
  void check_same(const RowGradients& other) const {
    native::check_same(x, other.x, "grad_x, whole and in parts");
    native::check_same(gain, other.gain, "grad_gain, whole and in parts");
    native::check_same(bias, other.bias, "grad_bias, whole and in parts");
  }
};

// What a backward pass reads.
template <class T, class A = accumulate_t<T>>
struct RowOperands {
  int64_t x_stride, grad_stride;
  Block<T> x, grad;
  Block<A> gain, rstd, mean, residual, slope;

  RowOperands(const Case& c, Source& source)
      : x_stride(c.n + c.x_gap),
        grad_stride(c.n + c.grad_gap),
        x(extent(c.rows, c.n, x_stride), c.x, c.place),
        grad(extent(c.rows, c.n, grad_stride), c.grad, c.place),
        gain(c.gain * c.n, c.numbers, c.place),
        rstd(c.rows, c.numbers, c.place),
        mean(c.centred * c.rows, c.numbers, c.place),
        residual(c.centred * c.rows, c.numbers, c.place),
        slope(c.outside * c.rows, c.numbers, c.place) {
    source.fill(x);
    source.fill(grad);
    source.fill(gain);
    source.fill(rstd, [](double v) { return std::fabs(v); });
    source.fill(mean);
    source.fill(residual, [](double v) { return v * kEpsilon<A> / 8; });
    source.fill(slope, [](double v) { return 1 + std::fabs(v); });
  }
  void check() const {
    x.check("x");
    grad.check("grad_y");
    gain.check("gain");
    rstd.check("rstd");
    mean.check("mean");
    residual.check("residual");
    slope.check("slope");
  }
};

// A row's gradient, and what it adds to the sums for gain and bias: numbers, and their sizes.
template <class T, class A = accumulate_t<T>>
void check_row_gradient(const Case& c, const RowOperands<T>& in, const RowGradients<T>& found,
                        int64_t row, std::vector<Real>& gain, std::vector<Real>& gain_size,
                        std::vector<Real>& bias, std::vector<Real>& bias_size) {
  const T *x = in.x.data() + row * in.x_stride, *grad = in.grad.data() + row * in.grad_stride;
  const Real rstd = in.rstd[row], slope = c.outside ? Real(in.slope[row]) : 1;
  const Real mean = c.centred ? Real(in.mean[row]) : 0;
  const Real residual = c.centred ? Real(in.residual[row]) : 0;
  const auto x_hat = [&](int64_t i) { return (real(x[i]) - mean - residual) * rstd; };
  const auto x_hat_size = [&](int64_t i) {
    return (std::fabs(real(x[i]) - mean) + std::fabs(residual)) * rstd;
  };
  const auto gw = [&](int64_t i) { return real(grad[i]) * (c.gain ? Real(in.gain[i]) : 1); };
  Real sum = 0, product = 0, sum_size = 0, product_size = 0, largest = 0, size = 0;
  for (int64_t i = 0; i < c.n; ++i) {
    sum += gw(i);
    product += gw(i) * x_hat(i);
    sum_size += std::fabs(gw(i));
    product_size += std::fabs(gw(i)) * x_hat_size(i);
    largest = std::max(largest, x_hat_size(i));
    size = std::max(size, std::fabs(gw(i)));
    gain[i] += real(grad[i]) * x_hat(i);
    gain_size[i] += std::fabs(real(grad[i])) * x_hat_size(i);
    bias[i] += real(grad[i]);
    bias_size[i] += std::fabs(real(grad[i]));
  }
  const Real n = Real(c.n);
  if (!c.centred) sum = sum_size = 0;
  size = rstd * (size + sum_size / n + largest * product_size / n * slope);
  for (int64_t i = 0; c.grad_x && i < c.n; ++i)
    check_near(found.x[row * c.n + i], rstd * (gw(i) - sum / n - x_hat(i) * product / n * slope),
               size, kRoundings, "grad_x", row * c.n + i);
}

template <class T>
void check_row_gradients(const Case& c, const RowOperands<T>& in, const RowGradients<T>& found) {
  for (int64_t first = 0; first < c.rows; first += c.block_rows) {
    std::vector<Real> gain(c.n), gain_size(c.n), bias(c.n), bias_size(c.n);
    for (int64_t r = first; r < std::min(c.rows, first + c.block_rows); ++r)
      check_row_gradient(c, in, found, r, gain, gain_size, bias, bias_size);
    const int64_t at = first / c.block_rows * c.n;
    const double roundings = kRoundings + double(c.block_rows);
    for (int64_t i = 0; c.grad_gain && i < c.n; ++i)
      check_near(found.gain[at + i], gain[i], gain_size[i], roundings, "grad_gain", at + i);
    for (int64_t i = 0; c.grad_bias && i < c.n; ++i)
      check_near(found.bias[at + i], bias[i], bias_size[i], roundings, "grad_bias", at + i);
  }
}

template <class T, class A = accumulate_t<T>>
void check_row_backward(const Kernels<T>& k, const Case& c, Source& source) {
  RowOperands<T> in(c, source);
  const int64_t blocks = (c.rows + c.block_rows - 1) / c.block_rows;
  const auto run = [&](RowGradients<T>& results, int64_t split) {
    RowBackward<T> p{};
    p.grad_y = in.grad.data();
    p.grad_y_stride = in.grad_stride;
    p.x = in.x.data();
    p.x_stride = in.x_stride;
    p.gain = c.gain ? in.gain.data() : nullptr;
    p.saved.rstd = in.rstd.data();
    if (c.centred) p.saved.mean = in.mean.data();
    if (c.centred) p.saved.residual = in.residual.data();
    if (c.outside) p.saved.slope = in.slope.data();
    p.grad_x = c.grad_x ? results.x.data() : nullptr;
    p.rows = c.rows;
    p.n = c.n;
    p.block_rows = c.block_rows;
    p.grad_gain = c.grad_gain ? results.gain.data() : nullptr;
    p.grad_bias = c.grad_bias ? results.bias.data() : nullptr;
    p.traffic = c.traffic;
    in_parts(blocks, split, [&](int64_t begin, int64_t end) {
      k.row_backward(p, begin, end);
      for (int64_t i = end * c.block_rows * c.n; i < results.x.size(); ++i)
        if (!results.x.untouched(i)) fail("element %lld of a later row was written", (long long)i);
    });
    results.check();
    in.check();
  };
  RowGradients<T> whole(c, blocks, c.out), parts(c, blocks, c.again);
  run(whole, blocks);
  run(parts, c.split);
  whole.check_same(parts);
  if (source.tame()) check_row_gradients(c, in, whole);
}

}  // namespace normkit::native
