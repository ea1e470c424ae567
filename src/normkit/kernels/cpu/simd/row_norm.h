// Row norms: LayerNorm (centred) and RMSNorm. Everything about a row happens while it is in cache,
// so x is read and y written once.
#pragma once

#include "vector.h"

namespace normkit::NORMKIT_ISA {

template <class A>
struct Scalars {
  Mean<A> centre;
  double var;
  double rstd;
  double slope;
};

template <class T, class A = accumulate_t<T>>
inline void set_root(Scalars<A>& s, double var, const RowForward<T>& p) {
  s.var = var;
  if (p.outside) {
    const double root = __builtin_sqrt(var);
    s.rstd = 1.0 / (root + p.eps);
    // A row of zeros has no direction to project out: no slope.
    s.slope = root > 0 ? (root + p.eps) / root : 0.0;
  } else {
    s.rstd = 1.0 / __builtin_sqrt(var + p.eps);
    s.slope = 1;
  }
}

template <bool kCentred, class T, class A = accumulate_t<T>>
inline Scalars<A> row_statistics(const T* x, T* y, const RowForward<T>& p) {
  Scalars<A> s{};
  if (kCentred) {
    const A shift = load_one(x);
    const Vec<A> shifts = broadcast(shift);
    double sum[1] = {};
    add_sums<1, A>(p.n, sum, [&](int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
      out[0] = load(x + i, width) - shifts;
    });
    s.centre = split_mean<A>(shift, sum[0] / double(p.n));
  }
  const Vec<A> mean = broadcast(s.centre.mean), residual = broadcast(s.centre.residual);
  double squares[1] = {};
  add_sums<1, A>(p.n, squares, [&](int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
    if (!p.stream) fetch_to_write(y + i);
    Vec<A> d = load(x + i, width);
    if (kCentred) d = (d - mean) - residual;
    out[0] = d * d;
  });
  set_root(s, squares[0] / double(p.n), p);
  return s;
}

// A row's x_hat as a rounded product and what is missing from it to the exact one: rstd's rounding,
// the product's, and the mean's. Added back with the gain, they leave an output in float within
// about one unit in the last place; without them five roundings add up.
template <class A>
struct Normalized {
  Vec<A> product, rest;
};

template <bool kCentred, class A>
struct Normalizer {
  Vec<A> mean, rstd, rstd_rest, shift;

  explicit Normalizer(const Scalars<A>& s)
      : mean(broadcast(s.centre.mean)),
        rstd(broadcast(A(s.rstd))),
        rstd_rest(broadcast(A(s.rstd - double(A(s.rstd))))),
        shift(broadcast(A(-double(s.centre.residual) * s.rstd))) {}

  Normalized<A> operator()(Vec<A> x) const {
    const Vec<A> d = kCentred ? x - mean : x;
    const Vec<A> product = d * rstd;
    const Vec<A> rest = fused(d, rstd, -product);
    return {product, fused(d, rstd_rest, kCentred ? rest + shift : rest)};
  }
};

template <bool kCentred, bool kGain, bool kBias, bool kStream, class T, class A = accumulate_t<T>>
inline void apply_row(const T* x, T* y, const RowForward<T>& p, const Scalars<A>& s) {
  const T* next = x + p.x_stride;
  const Normalizer<kCentred, A> normalize(s);
  sweep<A>(0, p.n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
    fetch(next + i);
    const Normalized<A> x_hat = normalize(load(x + i, width));
    Vec<A> rest = x_hat.rest;
    if (kGain) rest = rest * load(p.gain + i, width);
    if (kBias) rest = rest + load(p.bias + i, width);
    Vec<A> v = x_hat.product + rest;
    if (kGain) v = fused(x_hat.product, load(p.gain + i, width), rest);
    store_to<kStream>(y + i, v, width);
  });
}

template <bool kCentred, bool kStream, class T>
inline void apply_row(const T* x, T* y, const RowForward<T>& p, const Scalars<accumulate_t<T>>& s) {
  if (p.gain && p.bias) return apply_row<kCentred, true, true, kStream>(x, y, p, s);
  if (p.gain) return apply_row<kCentred, true, false, kStream>(x, y, p, s);
  if (p.bias) return apply_row<kCentred, false, true, kStream>(x, y, p, s);
  return apply_row<kCentred, false, false, kStream>(x, y, p, s);
}

// A row whose squares leave float's range, once more in double: one element at a time, for it is
// rare.
template <bool kCentred, class T, class A = accumulate_t<T>>
__attribute__((noinline)) Scalars<A> redo_row(const T* x, T* y, const RowForward<T>& p) {
  double mean = 0, var = 0;
  for (int64_t i = 0; kCentred && i < p.n; ++i) mean += double(load_one(x + i)) / double(p.n);
  for (int64_t i = 0; i < p.n; ++i) {
    const double d = double(load_one(x + i)) - mean;
    var += d * d / double(p.n);
  }
  Scalars<A> s{};
  s.centre = split_mean<A>(mean, 0);
  set_root(s, var, p);
  for (int64_t i = 0; i < p.n; ++i) {
    double v = (double(load_one(x + i)) - mean) * s.rstd;
    if (p.gain) v *= double(p.gain[i]);
    if (p.bias) v += double(p.bias[i]);
    store(y + i, broadcast(A(v)), Part{1});
  }
  return s;
}

// Whether float held the squares: neither too large for it, nor so small that they vanish beside no
// eps.
inline bool in_range(double var, double eps) { return var < 1e37 && (var > 1e-25 || eps > 1e-25); }

template <bool kCentred, class T>
inline void forward_rows(const RowForward<T>& p, int64_t begin, int64_t end) {
  using A = accumulate_t<T>;
  for (int64_t row = begin; row < end; ++row) {
    const T* x = p.x + row * p.x_stride;
    T* y = p.y + row * p.n;
    auto s = row_statistics<kCentred>(x, y, p);
    if (sizeof(A) == sizeof(float) && !in_range(s.var, p.eps))
      s = redo_row<kCentred>(x, y, p);
    else if (p.stream && streamable(y))
      apply_row<kCentred, true>(x, y, p, s);
    else
      apply_row<kCentred, false>(x, y, p, s);
    if (p.save.rstd) p.save.rstd[row] = A(s.rstd);
    if (p.save.mean) p.save.mean[row] = s.centre.mean;
    if (p.save.residual) p.save.residual[row] = s.centre.residual;
    if (p.save.slope) p.save.slope[row] = A(s.slope);
  }
  if (p.stream) fence();
}

template <class T>
void row_forward(const RowForward<T>& p, int64_t begin, int64_t end) {
  if (p.centred)
    forward_rows<true>(p, begin, end);
  else
    forward_rows<false>(p, begin, end);
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
    if (!p.stream) fetch_to_write(grad_x + i);
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
template <int R, bool kStream, class T, class A = accumulate_t<T>>
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
        store_to<kStream>(grad_x + r * p.n + i,
                          (g * gain * s[r].rstd - s[r].shift) - x_hat * s[r].pull, width);
    }
    if (grad_gain) store(grad_gain + i, gain_sum, width);
    if (grad_bias) store(grad_bias + i, bias_sum, width);
  });
}

template <bool kStream, class T, class A = accumulate_t<T>>
inline void backward_block(const RowBackward<T>& p, int64_t block) {
  int64_t row = block * p.block_rows;
  const int64_t last = row + p.block_rows < p.rows ? row + p.block_rows : p.rows;
  A* gain_sum = p.grad_gain ? p.grad_gain + block * p.n : nullptr;
  A* bias_sum = p.grad_bias ? p.grad_bias + block * p.n : nullptr;
  if (gain_sum) memset(gain_sum, 0, p.n * sizeof(A));
  if (bias_sum) memset(bias_sum, 0, p.n * sizeof(A));
  for (; row + 4 <= last; row += 4) backward_rows<4, kStream>(p, row, gain_sum, bias_sum);
  for (; row < last; ++row) backward_rows<1, kStream>(p, row, gain_sum, bias_sum);
}

template <class T>
void row_backward(const RowBackward<T>& p, int64_t begin, int64_t end) {
  const bool stream = p.stream && streamable(p.grad_x) && p.n * sizeof(T) % 64 == 0;
  for (int64_t block = begin; block < end; ++block)
    stream ? backward_block<true>(p, block) : backward_block<false>(p, block);
  if (stream) fence();
}

}  // namespace normkit::NORMKIT_ISA
