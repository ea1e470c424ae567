// Row norms: LayerNorm (centred) and RMSNorm. Everything about a row happens while it is in cache,
// so x is read and y written once.
#pragma once

#include "vector.h"

namespace normkit::NORMKIT_ISA {

// The mean as two numbers. (x - mean) is exact where x and mean are close, and the residual then
// restores what rounding the mean to A took away: at an offset of 1e4 that is half of 1e-3.
template <class A>
struct Mean {
  A mean = 0;
  A residual = 0;

  // The exact sum shift + m, split by Knuth's two-sum.
  static Mean from_shift(A shift, double m) {
    double sum = double(shift) + m;
    double tail = sum - double(shift);
    double lost = (double(shift) - (sum - tail)) + (m - tail);
    A mean = A(sum);
    return {mean, A((sum - double(mean)) + lost)};
  }
};

template <class A>
struct Scalars {
  Mean<A> centre;
  A rstd;
  A slope;
};

template <class T, class A = accumulate_t<T>>
inline Scalars<A> row_statistics(const T* x, T* y, const RowForward<T>& p) {
  Scalars<A> s{};
  const double inverse_n = 1.0 / double(p.n);
  if (p.centred) {
    const A shift = load_one(x);
    const Vec<A> shifts = broadcast(shift);
    double sum[1] = {};
    add_sums<1, A>(p.n, sum, [&](int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
      out[0] = load(x + i, width) - shifts;
    });
    s.centre = Mean<A>::from_shift(shift, sum[0] * inverse_n);
  }
  const Vec<A> mean = broadcast(s.centre.mean), residual = broadcast(s.centre.residual);
  double squares[1] = {};
  add_sums<1, A>(p.n, squares, [&](int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
    fetch_to_write(y + i);
    Vec<A> d = p.centred ? (load(x + i, width) - mean) - residual : load(x + i, width);
    out[0] = d * d;
  });
  const double var = squares[0] * inverse_n;
  if (p.outside) {
    const double root = __builtin_sqrt(var);
    s.rstd = A(1.0 / (root + p.eps));
    // A row of zeros has no direction to project out: no slope.
    s.slope = root > 0 ? A((root + p.eps) / root) : A(0);
  } else {
    s.rstd = A(1.0 / __builtin_sqrt(var + p.eps));
    s.slope = 1;
  }
  return s;
}

template <bool kCentred, bool kGain, bool kBias, class T, class A = accumulate_t<T>>
inline void apply_row(const T* x, T* y, const RowForward<T>& p, const Scalars<A>& s) {
  const T* next = x + p.x_stride;
  const Vec<A> mean = broadcast(s.centre.mean), residual = broadcast(s.centre.residual);
  const Vec<A> rstd = broadcast(s.rstd);
  sweep<A>(0, p.n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
    fetch(next + i);
    Vec<A> v = load(x + i, width);
    if (kCentred) v = (v - mean) - residual;
    v = v * rstd;
    if (kGain) v = v * load(p.gain + i, width);
    if (kBias) v = v + load(p.bias + i, width);
    store(y + i, v, width);
  });
}

template <bool kCentred, class T>
inline void apply_row(const T* x, T* y, const RowForward<T>& p, const Scalars<accumulate_t<T>>& s) {
  if (p.gain && p.bias) return apply_row<kCentred, true, true>(x, y, p, s);
  if (p.gain) return apply_row<kCentred, true, false>(x, y, p, s);
  if (p.bias) return apply_row<kCentred, false, true>(x, y, p, s);
  return apply_row<kCentred, false, false>(x, y, p, s);
}

template <class T>
void row_forward(const RowForward<T>& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* x = p.x + row * p.x_stride;
    T* y = p.y + row * p.n;
    const auto s = row_statistics(x, y, p);
    if (p.centred)
      apply_row<true>(x, y, p, s);
    else
      apply_row<false>(x, y, p, s);
    if (p.save.rstd) p.save.rstd[row] = s.rstd;
    if (p.save.mean) p.save.mean[row] = s.centre.mean;
    if (p.save.residual) p.save.residual[row] = s.centre.residual;
    if (p.save.slope) p.save.slope[row] = s.slope;
  }
}

// Backward, with d = x - mean, x_hat = d * rstd and gw = grad_y * gain:
//   grad_x    = rstd * (gw - mean(gw) - x_hat * mean(gw * x_hat) * slope)     (mean(gw) if centred)
//   grad_gain = sum over rows of grad_y * x_hat,   grad_bias = sum over rows of grad_y
template <class A>
struct BackwardScalars {
  Vec<A> mean, residual, rstd;
  Vec<A> shift;  // rstd * mean(gw)
  Vec<A> pull;   // rstd * mean(gw * x_hat) * slope
};

template <class T, class A = accumulate_t<T>>
inline BackwardScalars<A> backward_scalars(const RowBackward<T>& p, int64_t row) {
  const T* x = p.x + row * p.x_stride;
  const T* grad_y = p.grad_y + row * p.grad_y_stride;
  const bool centred = p.saved.mean;
  const A rstd = p.saved.rstd[row];
  BackwardScalars<A> s{};
  s.rstd = broadcast(rstd);
  if (centred) {
    s.mean = broadcast(p.saved.mean[row]);
    s.residual = broadcast(p.saved.residual[row]);
  }
  if (!p.grad_x) return s;
  double sum[2] = {};
  T* grad_x = p.grad_x + row * p.n;
  add_sums<2, A>(p.n, sum, [&](int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
    fetch_to_write(grad_x + i);
    Vec<A> gw = load(grad_y + i, width);
    if (p.gain) gw *= load(p.gain + i, width);
    Vec<A> x_hat = ((load(x + i, width) - s.mean) - s.residual) * s.rstd;
    out[0] = gw;
    out[1] = gw * x_hat;
  });
  const double slope = p.saved.slope ? double(p.saved.slope[row]) : 1.0;
  if (centred) s.shift = broadcast(A(sum[0] / double(p.n) * double(rstd)));
  s.pull = broadcast(A(sum[1] / double(p.n) * double(rstd) * slope));
  return s;
}

// R rows at a time, so that a weight gradient is loaded and stored once for all of them.
template <int R, class T, class A = accumulate_t<T>>
inline void backward_rows(const RowBackward<T>& p, int64_t row, A* grad_gain, A* grad_bias) {
  BackwardScalars<A> s[R];
  for (int r = 0; r < R; ++r) s[r] = backward_scalars(p, row + r);
  const T* x = p.x + row * p.x_stride;
  const T* grad_y = p.grad_y + row * p.grad_y_stride;
  T* grad_x = p.grad_x ? p.grad_x + row * p.n : nullptr;
  sweep<A>(0, p.n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
    const Vec<A> gain = p.gain ? load(p.gain + i, width) : broadcast(A(1));
    Vec<A> gain_sum = grad_gain ? load(grad_gain + i, width) : Vec<A>{};
    Vec<A> bias_sum = grad_bias ? load(grad_bias + i, width) : Vec<A>{};
    for (int r = 0; r < R; ++r) {
      fetch(grad_y + (r + R) * p.grad_y_stride + i);
      fetch(x + (r + R) * p.x_stride + i);
      const Vec<A> g = load(grad_y + r * p.grad_y_stride + i, width);
      const Vec<A> d = (load(x + r * p.x_stride + i, width) - s[r].mean) - s[r].residual;
      const Vec<A> x_hat = d * s[r].rstd;
      gain_sum += g * x_hat;
      bias_sum += g;
      if (grad_x)
        store(grad_x + r * p.n + i, (g * gain * s[r].rstd - s[r].shift) - x_hat * s[r].pull, width);
    }
    if (grad_gain) store(grad_gain + i, gain_sum, width);
    if (grad_bias) store(grad_bias + i, bias_sum, width);
  });
}

// Rows summed in A before the sum goes on in double.
constexpr int64_t kRowsPerFlush = 64;

template <class A>
inline void flush(A* from, double* to, int64_t n, bool first) {
  for (int64_t i = 0; i < n; ++i) to[i] = first ? double(from[i]) : to[i] + double(from[i]);
  memset(from, 0, n * sizeof(A));
}

template <class T>
void row_backward(const RowBackward<T>& p, int64_t begin, int64_t end) {
  using A = accumulate_t<T>;
  A* gain_sum = p.grad_gain ? p.scratch : nullptr;
  A* bias_sum = p.grad_bias ? p.scratch + p.n : nullptr;
  if (p.scratch) memset(p.scratch, 0, 2 * p.n * sizeof(A));
  for (int64_t block = begin; block < end; ++block) {
    const int64_t start = block * p.block_rows;
    int64_t row = start;
    const int64_t last = row + p.block_rows < p.rows ? row + p.block_rows : p.rows;
    while (row < last) {
      const bool first = row == start;
      const int64_t stop = last - row < kRowsPerFlush ? last : row + kRowsPerFlush;
      for (; row + 4 <= stop; row += 4) backward_rows<4>(p, row, gain_sum, bias_sum);
      for (; row < stop; ++row) backward_rows<1>(p, row, gain_sum, bias_sum);
      if (gain_sum) flush(gain_sum, p.grad_gain + block * p.n, p.n, first);
      if (bias_sum) flush(bias_sum, p.grad_bias + block * p.n, p.n, first);
    }
  }
}

}  // namespace normkit::NORMKIT_ISA
