// Row norms: LayerNorm (centred) and RMSNorm. Everything about a row happens while it is in cache,
// so x is read and y written once.
#pragma once

#include "loops.h"

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

// About a row's mean: what its elements are summed relative to, so that their squares don't cancel.
template <class T, class A = accumulate_t<T>>
inline A rough_mean(const T* x, int64_t n) {
  constexpr int L = kLanes<A>;
  if (n < 4 * L) return load_one(x);
  return A(add_lanes((load(x) + load(x + L)) + (load(x + 2 * L) + load(x + 3 * L))) / (4 * L));
}

// The sums of squares of x - shift and, where centred, of x - shift, in one pass, each step in P.
template <bool kCentred, class P, class T, class A = accumulate_t<T>>
inline Wide<1 + kCentred> sum_row(const T* x, int64_t n, A shift) {
  const Vec<P> shifts = broadcast(P(shift));
  Wide<1 + kCentred> sums;
  add_sums<P, T>(n, sums, [&](int64_t i, auto width) NORMKIT_INLINE {
    const auto v = load_as<P>(x + i, width);
    if constexpr (kCentred) {
      const auto d = v - shifts;
      return terms(d * d, d);
    } else {
      return terms(v * v);
    }
  });
  return sums;
}

// What follows from a row's sums, taken in P. Returns whether they can be relied on.
template <bool kCentred, class P, class T, class A = accumulate_t<T>>
inline bool conclude(const Wide<1 + kCentred>& sums, const RowForward<T>& p, A shift,
                     Scalars<A>& s) {
  const double squares = sums.total(0) * p.inverse_n;
  const double mean = kCentred ? sums.total(1) * p.inverse_n : 0.0;
  const double var = squares - mean * mean;
  if (kCentred) s.centre = split_mean<A>(shift, mean);
  set_root(s, var < 0 ? 0.0 : var, p);
  if (kCentred && mean * mean > var)
    return false;  // more than a standard deviation off: they cancel
  return sizeof(T) != sizeof(float) || sizeof(P) == sizeof(double) ||
         even(sums.largest() * p.inverse_n, squares);
}

template <bool kCentred, class T, class A = accumulate_t<T>>
__attribute__((noinline)) void statistics_in_double(const T* x, const RowForward<T>& p, A shift,
                                                    Scalars<A>& s) {
  const auto sums = sum_row<kCentred, double>(x, p.n, shift);
  if (conclude<kCentred, double>(sums, p, shift, s) || !kCentred) return;
  shift = s.centre.mean;
  conclude<kCentred, double>(sum_row<kCentred, double>(x, p.n, shift), p, shift, s);
}

// Rows go in groups of as many.
constexpr int64_t kGroup = 8;
// Shorter rows of float are summed in double: no crowd of roundings averages out.
constexpr int64_t kFewTerms = 256;

// Of `count` rows, step by step for all of them: a step's result takes a while, but the next row
// does not wait for it.
template <bool kCentred, class T, class A = accumulate_t<T>>
inline void group_statistics(const T* x, const RowForward<T>& p, int64_t count, Scalars<A>* s) {
  A shift[kGroup] = {};
  Wide<1 + kCentred> sums[kGroup];
  const bool few = sizeof(T) == sizeof(float) && p.n < kFewTerms;
  for (int64_t r = 0; kCentred && r < count; ++r) shift[r] = rough_mean(x + r * p.x_stride, p.n);
  for (int64_t r = 0; !few && r < count; ++r)
    sums[r] = sum_row<kCentred, A>(x + r * p.x_stride, p.n, shift[r]);
  for (int64_t r = 0; r < count; ++r) {
    if (!few && conclude<kCentred, A>(sums[r], p, shift[r], s[r])) continue;
    if (kCentred && !few) shift[r] = s[r].centre.mean;
    statistics_in_double<kCentred>(x + r * p.x_stride, p, shift[r], s[r]);
  }
}

enum class Affine { none, gain, gain_and_bias };

// x_hat, times gain, plus bias. In full precision what is missing from the product to the exact
// x_hat (rstd's rounding, the product's own, the mean's) is added back, which leaves an output
// within about one unit in the last place; without it five roundings add up. A half's own rounding
// hides them.
template <bool kCentred, class T, class A = accumulate_t<T>>
struct Normalizer {
  Vec<A> mean, rstd, rstd_rest, shift;

  Normalizer() = default;
  explicit Normalizer(const Scalars<A>& s)
      : mean(broadcast(s.centre.mean)),
        rstd(broadcast(A(s.rstd))),
        rstd_rest(broadcast(A(s.rstd - double(A(s.rstd))))),
        shift(broadcast(A(-double(s.centre.residual) * s.rstd))) {}

  template <Affine kAffine, class V>
  NORMKIT_INLINE V apply(const V& x, const V& gain, const V& bias) const {
    V d = x;
    if constexpr (kCentred) d = x - mean;
    if constexpr (sizeof(T) < sizeof(A)) {
      if (kAffine == Affine::none) return d * rstd;
      return kAffine == Affine::gain ? d * rstd * gain : fused(d * rstd, gain, bias);
    } else if constexpr (kAffine == Affine::none || !kCentred) {
      const V v = fused(d, rstd, kCentred ? fused(d, rstd_rest, shift) : d * rstd_rest);
      if (kAffine == Affine::none) return v;
      return kAffine == Affine::gain ? v * gain : fused(v, gain, bias);
    } else {
      const V product = d * rstd;
      const V lost = kFused ? fused(d, rstd, -product) + shift : shift;
      const V rest = fused(d, rstd_rest, lost);
      return fused(product, gain, kAffine == Affine::gain ? rest * gain : fused(rest, gain, bias));
    }
  }
};

// Columns [begin, end) of a row, while the same of a row `ahead` elements further is fetched.
template <bool kCentred, Traffic kTraffic, Affine kAffine, class T, class A = accumulate_t<T>>
inline void apply_row(const T* x, T* y, const RowForward<T>& p, const Scalars<A>& s, int64_t begin,
                      int64_t end, int64_t ahead) {
  const Normalizer<kCentred, T> normalize(s);
  const A *gain = p.gain, *bias = p.bias;
  sweep_lines<kTraffic>(y, begin, end, [&](int k, int64_t i, auto width) NORMKIT_INLINE {
    fetch<kTraffic>(k, x + ahead + i);
    const auto v = load(x + i, width);
    auto gains = v, biases = v;  // not used where there are none
    if (kAffine != Affine::none) gains = load(gain + i, width);
    if (kAffine == Affine::gain_and_bias) biases = load(bias + i, width);
    store_to<kTraffic>(y + i, normalize.template apply<kAffine>(v, gains, biases), width);
  });
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
// eps. Outside the root it is eps squared that stands beside them.
inline bool in_range(double var, double eps, bool outside) {
  return var < 1e37 && (var > 1e-25 || eps > (outside ? 3e-13 : 1e-25));
}

template <class A>
inline void save_row(const RowStatistics<A>& save, int64_t row, const Scalars<A>& s) {
  if (save.rstd) save.rstd[row] = A(s.rstd);
  if (save.mean) save.mean[row] = s.centre.mean;
  if (save.residual) save.residual[row] = s.centre.residual;
  if (save.slope) save.slope[row] = A(s.slope);
}

// All rows of a group are summed, then all are applied, tile by tile of their columns, so that gain
// and bias are read from the innermost cache. Past the cache, reading and writing had better
// alternate sooner.
constexpr int64_t kStreamedGroup = 2;
constexpr int64_t kTile = 1024;
constexpr int kTogether = 4;  // rows of a backward pass that share a sweep

template <bool kCentred, Traffic kTraffic, Affine kAffine, class T, class A = accumulate_t<T>>
inline void forward_group(const RowForward<T>& p, int64_t row, int64_t count) {
  const T* x = p.x + row * p.x_stride;
  T* y = p.y + row * p.n;
  Scalars<A> s[kGroup];
  bool plain[kGroup];
  group_statistics<kCentred>(x, p, count, s);
  for (int64_t r = 0; r < count; ++r)
    plain[r] = sizeof(A) == sizeof(double) || in_range(s[r].var, p.eps, p.outside);
  const int64_t tile = kTraffic == Traffic::cached || by_lines(p.y, p.n) ? kTile : p.n;
  for (int64_t begin = 0; begin < p.n; begin += tile) {
    const int64_t end = p.n - begin < tile ? p.n : begin + tile;
    for (int64_t r = 0; r < count; ++r)
      if (plain[r])
        apply_row<kCentred, kTraffic, kAffine>(x + r * p.x_stride, y + r * p.n, p, s[r], begin, end,
                                               count * p.x_stride);
  }
  for (int64_t r = 0; r < count; ++r) {
    if (!plain[r]) s[r] = redo_row<kCentred>(x + r * p.x_stride, y + r * p.n, p);
    save_row(p.save, row + r, s[r]);
  }
}

template <bool kCentred, Traffic kTraffic, class T>
inline void forward_range(const RowForward<T>& p, int64_t row, int64_t end) {
  constexpr int64_t kRows = kTraffic == Traffic::streamed ? kStreamedGroup : kGroup;
  for (; row < end; row += kRows) {
    const int64_t count = end - row < kRows ? end - row : kRows;
    if (p.bias)
      forward_group<kCentred, kTraffic, Affine::gain_and_bias>(p, row, count);
    else if (p.gain)
      forward_group<kCentred, kTraffic, Affine::gain>(p, row, count);
    else
      forward_group<kCentred, kTraffic, Affine::none>(p, row, count);
  }
}

template <class T>
void row_forward(const RowForward<T>& p, int64_t begin, int64_t end) {
  with_traffic(p.traffic, [&](auto traffic) {
    p.centred ? forward_range<true, traffic.value>(p, begin, end)
              : forward_range<false, traffic.value>(p, begin, end);
  });
}

// Backward, with x_hat = (x - mean) * rstd and gw = grad_y * gain:
//   grad_x    = rstd * (gw - mean(gw) - x_hat * mean(gw * x_hat) * slope)     (mean(gw) if centred)
//   grad_gain = sum over rows of grad_y * x_hat,   grad_bias = sum over rows of grad_y
template <class A>
struct BackwardScalars {
  Vec<A> mean, rstd;
  Vec<A> x_hat_shift;  // -residual * rstd
  Vec<A> shift;        // -rstd * mean(gw)
  Vec<A> pull;         // -rstd * mean(gw * x_hat) * slope

  template <bool kCentred, class V>
  NORMKIT_INLINE V x_hat(const V& x) const {
    return kCentred ? fused(x - mean, rstd, x_hat_shift) : x * rstd;
  }
};

template <bool kCentred, class T, class A = accumulate_t<T>>
inline BackwardScalars<A> saved_scalars(const RowBackward<T>& p, int64_t row) {
  const double rstd = p.saved.rstd[row];
  BackwardScalars<A> s{};
  s.rstd = broadcast(A(rstd));
  if (!kCentred) return s;
  s.mean = broadcast(p.saved.mean[row]);
  s.x_hat_shift = broadcast(A(-double(p.saved.residual[row]) * rstd));
  return s;
}

// Adds gw * x_hat and, where centred, gw over columns [begin, end) of a row.
template <bool kCentred, bool kGain, class T, class A = accumulate_t<T>>
inline void add_products(const RowBackward<T>& p, int64_t row, const BackwardScalars<A>& s,
                         int64_t begin, int64_t end, Wide<1 + kCentred>& sums) {
  const T* x = p.x + row * p.x_stride + begin;
  const T* grad_y = p.grad_y + row * p.grad_y_stride + begin;
  const A* gain = kGain ? p.gain + begin : nullptr;
  add_gradient_sums<T>(end - begin, sums, [&](int64_t i, auto width) NORMKIT_INLINE {
    auto gw = load(grad_y + i, width);
    if (kGain) gw = gw * load(gain + i, width);
    const auto product = gw * s.template x_hat<kCentred>(load(x + i, width));
    if constexpr (kCentred)
      return terms(product, gw);
    else
      return terms(product);
  });
}

template <bool kCentred, class T, class A = accumulate_t<T>>
inline void set_pull(const RowBackward<T>& p, int64_t row, const Wide<1 + kCentred>& sums,
                     BackwardScalars<A>& s) {
  const double rstd_n = double(p.saved.rstd[row]) / double(p.n);
  const double slope = p.saved.slope ? double(p.saved.slope[row]) : 1.0;
  if (kCentred) s.shift = broadcast(A(-rstd_n * sums.total(1)));
  s.pull = broadcast(A(-rstd_n * slope * sums.total(0)));
}

// What is wanted of a backward pass. The usual: all of it, asked once and not for every vector.
template <bool kCentred>
struct Everything {
  template <class T>
  static bool asked(const RowBackward<T>& p) {
    return p.gain && p.grad_x && p.grad_gain && (p.grad_bias != nullptr) == kCentred;
  }
  constexpr static bool gain = true, grad_x = true, grad_gain = true, grad_bias = kCentred;
};
struct Whatever {
  bool gain, grad_x, grad_gain, grad_bias;
};

// Columns [begin, end) of R rows, so that a weight gradient is loaded and stored once for all of
// them.
template <int R, bool kCentred, Traffic kTraffic, class Wanted, class T, class A = accumulate_t<T>>
inline void backward_tile(const RowBackward<T>& p, Wanted wanted, int64_t row,
                          const BackwardScalars<A>* scalars, int64_t begin, int64_t end,
                          A* grad_gain, A* grad_bias) {
  BackwardScalars<A> s[R];
  const T *x[R], *grad_y[R];
  T* grad_x[R];
  for (int r = 0; r < R; ++r) {
    s[r] = scalars[r];
    x[r] = p.x + (row + r) * p.x_stride;
    grad_y[r] = p.grad_y + (row + r) * p.grad_y_stride;
    grad_x[r] = p.grad_x + (wanted.grad_x ? (row + r) * p.n : 0);
  }
  const A* gain = p.gain;
  const auto column = [&](int, int64_t i, auto width) NORMKIT_INLINE {
    const auto one = broadcast_like(A(1), width);
    const auto gains = wanted.gain ? load(gain + i, width) : one;
    auto gain_sum = wanted.grad_gain ? load(grad_gain + i, width) : one;
    auto bias_sum = wanted.grad_bias ? load(grad_bias + i, width) : one;
    for (int r = 0; r < R; ++r) {
      const auto g = load(grad_y[r] + i, width);
      const auto x_hat = s[r].template x_hat<kCentred>(load(x[r] + i, width));
      gain_sum = fused(g, x_hat, gain_sum);
      bias_sum = bias_sum + g;
      if (!wanted.grad_x) continue;
      const auto pulled = kCentred ? fused(x_hat, s[r].pull, s[r].shift) : x_hat * s[r].pull;
      store_to<kTraffic>(grad_x[r] + i, fused(g * gains, s[r].rstd, pulled), width);
    }
    if (wanted.grad_gain) store(grad_gain + i, gain_sum, width);
    if (wanted.grad_bias) store(grad_bias + i, bias_sum, width);
  };
  // Several rows' lines begin at the same columns only where rows are whole lines.
  R > 1 ? sweep_of<T>(begin, end, column) : sweep_lines<kTraffic>(grad_x[0], begin, end, column);
}

template <bool kCentred, Traffic kTraffic, class Wanted, class T, class A = accumulate_t<T>>
inline void backward_group(const RowBackward<T>& p, Wanted wanted, int64_t row, int64_t count,
                           A* grad_gain, A* grad_bias) {
  BackwardScalars<A> s[kGroup];
  Wide<1 + kCentred> sums[kGroup];
  for (int64_t r = 0; r < count; ++r) s[r] = saved_scalars<kCentred>(p, row + r);
  for (int64_t begin = 0; wanted.grad_x && begin < p.n; begin += kTile) {
    const int64_t end = p.n - begin < kTile ? p.n : begin + kTile;
    for (int64_t r = 0; r < count; ++r)
      wanted.gain ? add_products<kCentred, true>(p, row + r, s[r], begin, end, sums[r])
                  : add_products<kCentred, false>(p, row + r, s[r], begin, end, sums[r]);
  }
  for (int64_t r = 0; wanted.grad_x && r < count; ++r)
    set_pull<kCentred>(p, row + r, sums[r], s[r]);
  const bool together = kTraffic == Traffic::cached || by_lines(p.grad_x, p.n);
  const int64_t tile = together ? kTile : p.n;
  for (int64_t begin = 0; begin < p.n; begin += tile) {
    const int64_t end = p.n - begin < tile ? p.n : begin + tile;
    int64_t r = 0;
    for (; together && r + kTogether <= count; r += kTogether)
      backward_tile<kTogether, kCentred, kTraffic>(p, wanted, row + r, &s[r], begin, end, grad_gain,
                                                   grad_bias);
    for (; r < count; ++r)
      backward_tile<1, kCentred, kTraffic>(p, wanted, row + r, &s[r], begin, end, grad_gain,
                                           grad_bias);
  }
}

// Rows that are summed, then applied: half as many where that keeps x and grad_y in the innermost
// cache. Fetching the next ones ahead, as the forward pass does, cost more than it brought: two
// streams that are read one after the other are no trouble to the CPU's own prefetching.
template <class T>
inline int64_t backward_rows(int64_t n) {
  constexpr int64_t kInnermost = 24 << 10;
  const int64_t bytes = 2 * n * int64_t(sizeof(T));
  return kGroup * bytes > kInnermost && kGroup / 2 * bytes <= kInnermost ? kGroup / 2 : kGroup;
}

template <bool kCentred, Traffic kTraffic, class T, class A = accumulate_t<T>>
inline void backward_block(const RowBackward<T>& p, int64_t block) {
  const int64_t rows = kTraffic == Traffic::streamed ? kGroup : backward_rows<T>(p.n);
  const int64_t first = block * p.block_rows;
  const int64_t last = first + p.block_rows < p.rows ? first + p.block_rows : p.rows;
  A* gain_sum = p.grad_gain ? p.grad_gain + block * p.n : nullptr;
  A* bias_sum = p.grad_bias ? p.grad_bias + block * p.n : nullptr;
  if (gain_sum) memset(gain_sum, 0, p.n * sizeof(A));
  if (bias_sum) memset(bias_sum, 0, p.n * sizeof(A));
  const Whatever some{p.gain != nullptr, p.grad_x != nullptr, p.grad_gain != nullptr,
                      p.grad_bias != nullptr};
  for (int64_t row = first; row < last; row += rows) {
    const int64_t count = last - row < rows ? last - row : rows;
    if (Everything<kCentred>::asked(p))
      backward_group<kCentred, kTraffic>(p, Everything<kCentred>{}, row, count, gain_sum, bias_sum);
    else
      backward_group<kCentred, kTraffic>(p, some, row, count, gain_sum, bias_sum);
  }
}

template <class T>
void row_backward(const RowBackward<T>& p, int64_t begin, int64_t end) {
  with_traffic(p.traffic, [&](auto traffic) {
    for (int64_t block = begin; block < end; ++block)
      p.saved.mean ? backward_block<true, traffic.value>(p, block)
                   : backward_block<false, traffic.value>(p, block);
  });
}

// total[i] = the sum of `count` partials at i, each `stride` after the last, in their order.
template <class A>
void add_partials(const A* partials, int64_t count, int64_t stride, int64_t n, double* total) {
  sweep<double>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
    Vec<double> sum{};
    for (int64_t b = 0; b < count; ++b) sum += load_as<double>(partials + b * stride + i, width);
    store(total + i, sum, width);
  });
}

}  // namespace normkit::NORMKIT_ISA
