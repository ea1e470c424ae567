// Kernels of row norms: run twice, whole and in parts, between sentinels; the results must be the
// same bits, and near a plain reference unless the numbers are wild.
#pragma once

#include "careful_rows.h"
#include "exact_row.h"

namespace normkit::native {

// What a kernel adds up in float, it adds in chains of at most some 64 terms.
constexpr double kRoundings = 16;

// In which run what is kept of columns in A may lie apart.
template <class A>
int64_t run_of(const Case& c) {
  return c.apart && sizeof(A) == sizeof(float) ? kernels<bfloat16>().run : 0;
}

// Numbers of columns as they lie apart.
template <class A>
Block<A> apart(const Block<A>& numbers, int64_t run, const Case& c) {
  Block<A> to(numbers.size(), c.numbers, c.place);
  for (int64_t i = 0; i < numbers.size(); ++i) to[place(i, numbers.size(), run)] = numbers[i];
  to.freeze();
  return to;
}

template <class T, class A = accumulate_t<T>>
void check_widen(const Kernels<T>& k, const Case& c, Source& source) {
  Block<T> from(c.n, c.x, c.place);
  Block<A> to(c.n, c.out, c.place);
  source.fill(from);
  const int64_t run = run_of<A>(c);
  k.widen(from.data(), to.data(), c.n, run != 0);
  from.check("from");
  to.check("to");
  for (int64_t i = 0; i < c.n; ++i)
    if (const A found = to[place(i, c.n, run)];
        !(real(found) == real(from[i]) || std::isnan(real(from[i]))))
      fail("element %lld is %Lg, not %Lg", (long long)i, real(found), real(from[i]));
}

template <class T, class A = accumulate_t<T>>
void check_add_partials(const Kernels<T>& k, const Case& c, Source& source) {
  const int64_t stride = c.n + c.x_gap;
  Block<A> partials(extent(c.rows, c.n, stride), c.x, c.place);
  Block<double> total(c.n, c.out, c.place);
  source.fill(partials);
  const int64_t run = run_of<A>(c);
  k.add_partials(partials.data(), c.rows, stride, c.n, run != 0, total.data());
  partials.check("partials");
  total.check("total");
  for (int64_t i = 0; i < c.n; ++i) {
    double sum = 0;  // in the kernel's order, so to the bit
    for (int64_t r = 0; r < c.rows; ++r) sum += double(partials[r * stride + place(i, c.n, run)]);
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

// What is kept of a row, where A holds it. The larger the slope, the smaller is what it multiplies.
template <class T, class A = accumulate_t<T>>
void check_kept(const Case& c, const ExactRow<T>& exact, const RowResults<T>& found, int64_t row) {
  const Real rstd = exact.rstd, slope = exact.slope, most = kLargest<A> / 2;
  // Its sign says whether care was taken.
  if (rstd < most)
    check_within(std::fabs(found.rstd[row]), rstd, kRoundings * unit<A>(rstd), "rstd", row);
  if (c.outside && slope < most)
    check_within(found.slope[row], slope, kRoundings * kEpsilon<A> * slope * slope, "slope", row);
  if (c.centred)
    check_within(double(exact.off(found.mean[row], found.residual[row])), 0,
                 kRoundings * unit<A>(exact.furthest), "the mean, less what it should be", row);
}

template <class T, class A = accumulate_t<T>>
void check_row(const Case& c, const RowForward<T>& p, const RowResults<T>& found, int64_t row) {
  const ExactRow<T> exact(c, p.x + row * p.x_stride);
  if (!exact.has_value()) return;
  std::vector<Real> y(c.n);
  Real size = 0;
  for (int64_t i = 0; i < c.n; ++i) {
    const int64_t at = place(i, c.n, p.run);
    const Real gain = p.gain ? p.gain[at] : 1, bias = p.bias ? p.bias[at] : 0;
    const Real scaled = exact.x_hat(i) * gain, off = exact.x_hat_off() * gain;
    y[i] = scaled + bias;
    size = std::max({size, std::fabs(scaled), std::fabs(off), std::fabs(bias)});
  }
  check_result_row(found.y.data() + row * c.n, y, size, kOutputUnits<A>, "y", row);
  if (c.save) check_kept(c, exact, found, row);
}

template <class T, class A = accumulate_t<T>>
RowForward<T> forward_of(const Case& c, const Block<T>& x, int64_t stride, T* y,
                         const RowStatistics<A>& save) {
  RowForward<T> p{};
  p.x = x.data();
  p.x_stride = stride;
  p.y = y;
  p.save = save;
  p.n = c.n;
  p.inverse_n = 1.0 / double(c.n);
  p.eps = c.eps;
  p.centred = c.centred;
  p.outside = c.outside;
  p.traffic = c.traffic;
  p.careful = &careful::forward<T>;
  return p;
}

// That of the kernels, where the rows written to either place allow it.
template <class T>
int64_t same_run(const Kernels<T>& k, const Case& c, const T* to, const T* again) {
  return std::min(run_for(k.run, to, c.n, c.traffic), run_for(k.run, again, c.n, c.traffic));
}

template <class T, class A = accumulate_t<T>>
void check_row_forward(const Kernels<T>& k, const Case& c, Source& source) {
  const int64_t stride = c.n + c.x_gap;
  Block<T> x(extent(c.rows, c.n, stride), c.x, c.place);
  const bool with_gain = c.gain || c.bias;  // a bias without a gain is not the kernels' to serve
  Block<A> gain(with_gain * c.n, c.numbers, c.place), bias(c.bias * c.n, c.numbers, c.place);
  source.fill_rows(x, stride);
  source.fill(gain);
  source.fill(bias);
  RowResults<T> whole(c, c.out), parts(c, c.again);
  const int64_t apart = c.apart ? same_run(k, c, whole.y.data(), parts.y.data()) : 0;
  const auto pass = [&](RowResults<T>& results) {
    auto p = forward_of(c, x, stride, results.y.data(), results.views());
    p.run = apart;
    if (with_gain) p.gain = gain.data();
    if (c.bias) p.bias = bias.data();
    return p;
  };
  const auto run = [&](RowResults<T>& results, int64_t split) {
    const RowForward<T> p = pass(results);
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
  run(whole, c.rows);
  run(parts, c.split);
  whole.check_same(parts);
  for (int64_t r = 0; !source.wild() && r < c.rows; ++r) check_row(c, pass(whole), whole, r);
}

// ------------------------------------------------------------------------ backward
// Partial sums of a block lie so far after those of the last: not just behind them.
inline int64_t partial_stride(const Case& c) { return c.n + 3; }

template <class T, class A = accumulate_t<T>>
struct RowGradients {
  Block<T> x;
  Block<A> gain, bias;

  RowGradients(const Case& c, int64_t blocks, int64_t offset)
      : x(c.grad_x * c.rows * c.n, offset, c.place),
        gain(c.grad_gain * blocks * partial_stride(c), offset, c.place),
        bias(c.grad_bias * blocks * partial_stride(c), offset, c.place) {}

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

// What a backward pass reads; the statistics are those of the forward pass, or wild.
template <class T, class A = accumulate_t<T>>
struct RowOperands {
  int64_t x_stride, grad_stride;
  Block<T> x, grad;
  Block<A> gain, rstd, mean, residual, slope;

  RowOperands(const Kernels<T>& k, const Case& c, Source& source)
      : x_stride(c.n + c.x_gap),
        grad_stride(c.n + c.grad_gap),
        x(extent(c.rows, c.n, x_stride), c.x, c.place),
        grad(extent(c.rows, c.n, grad_stride), c.grad, c.place),
        gain(c.gain * c.n, c.numbers, c.place),
        rstd(c.rows, c.numbers, c.place),
        mean(c.centred * c.rows, c.numbers, c.place),
        residual(c.centred * c.rows, c.numbers, c.place),
        slope(c.outside * c.rows, c.numbers, c.place) {
    source.fill_rows(x, x_stride);
    source.fill_rows(grad, grad_stride);
    source.fill(gain);
    if (!source.wild()) {
      const Block<T> y(c.rows * c.n, 0, Place::within);
      k.row_forward(forward_of(c, x, x_stride, y.data(), saved()), 0, c.rows);
    }
    for (Block<A>* b : {&rstd, &mean, &residual, &slope})
      source.wild() ? source.fill(*b) : b->freeze();
  }
  RowStatistics<A> saved() const {
    RowStatistics<A> s{rstd.data()};
    if (mean.size()) s.mean = mean.data(), s.residual = residual.data();
    if (slope.size()) s.slope = slope.data();
    return s;
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

// Sums over the rows of a block, one for each column, and the sizes of what is added.
struct ExactSums {
  std::vector<Real> sum, size;
  explicit ExactSums(int64_t n) : sum(n), size(n) {}
  void add(int64_t i, Real term, Real of_size) {
    sum[i] += term;
    size[i] += of_size;
  }
  // A may not hold what comes between; the operator sees to that.
  template <class A>
  void check(const A* found, int64_t run, double roundings, const char* what) const {
    const int64_t n = int64_t(sum.size());
    for (int64_t i = 0; i < n; ++i)
      if (size[i] < kLargest<A> / 2)
        check_within(found[place(i, n, run)], sum[i], roundings * unit<A>(size[i]), what, i);
  }
};

template <class T, class A = accumulate_t<T>>
void check_row_gradient(const Case& c, const RowOperands<T>& in, const ExactRow<T>& exact,
                        const T* found, int64_t row) {
  const T* grad = in.grad.data() + row * in.grad_stride;
  const auto gw = [&](int64_t i) { return real(grad[i]) * (c.gain ? Real(in.gain[i]) : 1); };
  const Real n = Real(c.n);
  Real mean = 0, pull = 0, pull_size = 0, largest = 0;
  for (int64_t i = 0; i < c.n; ++i) {
    if (c.centred) mean += gw(i) / n;
    pull += gw(i) * exact.x_hat(i) / n * exact.slope;
    pull_size +=
        std::fabs(gw(i)) * (std::fabs(exact.x_hat(i)) + exact.x_hat_off()) / n * exact.slope;
    largest = std::max(largest, std::fabs(gw(i)));
  }
  std::vector<Real> right(c.n);
  for (int64_t i = 0; i < c.n; ++i) right[i] = exact.rstd * (gw(i) - mean - exact.x_hat(i) * pull);
  const Real size = exact.rstd * std::max(largest, exact.furthest * exact.rstd * pull_size);
  check_result_row(found, right, size, kGradientUnits<A>, "grad_x", row);
}

// Of rows [begin, end), which make one block.
template <class T>
void check_row_block(const Case& c, const RowOperands<T>& in, const RowGradients<T>& found,
                     int64_t run, int64_t begin, int64_t end) {
  ExactSums gain(c.n), bias(c.n);
  for (int64_t r = begin; r < end; ++r) {
    const ExactRow<T> exact(c, in.x.data() + r * in.x_stride);
    const T* grad = in.grad.data() + r * in.grad_stride;
    // Off by the mean's roundings, and where it is next to nothing by what A does not hold of that.
    const Real least = std::numeric_limits<accumulate_t<T>>::min() * std::max(Real(1), exact.rstd);
    const Real x_hat_size = least + exact.furthest * exact.rstd;
    for (int64_t i = 0; i < c.n; ++i) {
      const Real g = real(grad[i]), x_hat = exact.x_hat(i);
      gain.add(i, g * x_hat, std::fabs(g) * (std::fabs(x_hat) + x_hat_size));
      bias.add(i, g, std::fabs(g));
    }
    if (c.grad_x && exact.has_value())
      check_row_gradient(c, in, exact, found.x.data() + r * c.n, r);
  }
  const int64_t at = begin / c.block_rows * partial_stride(c);
  const double roundings = kRoundings + double(c.block_rows);
  if (c.grad_gain) gain.check(found.gain.data() + at, run, roundings, "grad_gain");
  if (c.grad_bias) bias.check(found.bias.data() + at, run, roundings, "grad_bias");
}

template <class T, class A = accumulate_t<T>>
void check_row_backward(const Kernels<T>& k, const Case& c, Source& source) {
  const RowOperands<T> in(k, c, source);
  const int64_t blocks = (c.rows + c.block_rows - 1) / c.block_rows;
  RowGradients<T> whole(c, blocks, c.out), parts(c, blocks, c.again);
  const int64_t apart_by = c.apart ? same_run(k, c, whole.x.data(), parts.x.data()) : 0;
  const Block<A> gain = apart(in.gain, apart_by, c), for_sums = apart(in.gain, k.run, c);
  const auto run = [&](RowGradients<T>& results, int64_t split) {
    RowBackward<T> p{};
    p.grad_y = in.grad.data();
    p.grad_y_stride = in.grad_stride;
    p.x = in.x.data();
    p.x_stride = in.x_stride;
    p.gain = c.gain ? gain.data() : nullptr;
    p.gain_for_sums = c.gain ? for_sums.data() : nullptr;
    p.run = apart_by;
    p.saved = in.saved();
    p.grad_x = c.grad_x ? results.x.data() : nullptr;
    p.rows = c.rows;
    p.n = c.n;
    p.block_rows = c.block_rows;
    p.partial_stride = partial_stride(c);
    p.grad_gain = c.grad_gain ? results.gain.data() : nullptr;
    p.grad_bias = c.grad_bias ? results.bias.data() : nullptr;
    p.eps = c.eps;
    p.centred = c.centred;
    p.outside = c.outside;
    p.traffic = c.traffic;
    p.careful = &careful::backward<T>;
    in_parts(blocks, split, [&](int64_t begin, int64_t end) {
      k.row_backward(p, begin, end);
      for (int64_t i = end * c.block_rows * c.n; i < results.x.size(); ++i)
        if (!results.x.untouched(i)) fail("element %lld of a later row was written", (long long)i);
    });
    results.check();
    in.check();
    gain.check("gain");
    for_sums.check("gain_for_sums");
  };
  run(whole, blocks);
  run(parts, c.split);
  whole.check_same(parts);
  for (int64_t r = 0; !source.wild() && r < c.rows; r += c.block_rows)
    check_row_block(c, in, whole, apart_by, r, std::min(c.rows, r + c.block_rows));
}

}  // namespace normkit::native
