// Row norms backward: the gradients of the input, and partial sums of those of gain and bias.
#pragma once

#include "loops.h"

namespace normkit::NORMKIT_ISA {

// Backward, with x_hat = (x - mean) * rstd and gw = grad_y * gain:
//   grad_x    = rstd * (gw - mean(gw) - x_hat * mean(gw * x_hat) * slope)     (mean(gw) if centred)
//   grad_gain = sum over rows of grad_y * x_hat,   grad_bias = sum over rows of grad_y
template <class A>
struct BackwardScalars {
  Subtrahend<Vec<A>> mean;
  Vec<A> rstd;
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
  s.mean = subtrahend(p.saved.mean[row]);
  s.x_hat_shift = broadcast(A(-double(p.saved.residual[row]) * rstd));
  return s;
}

// Adds gw * (x - mean) and, where centred, gw over columns [begin, end) of a row.
template <bool kCentred, bool kGain, class T, class A = accumulate_t<T>>
inline void add_products(const RowBackward<T>& p, int64_t row, const BackwardScalars<A>& s,
                         int64_t begin, int64_t end, Wide<1 + kCentred>& sums) {
  const T* x = p.x + row * p.x_stride + begin;
  const T* grad_y = p.grad_y + row * p.grad_y_stride + begin;
  const A* gain = kGain ? p.gain_for_sums + begin : nullptr;
  add_gradient_sums<T>(end - begin, sums, [&](int64_t i, auto width) NORMKIT_INLINE {
    // Always in the same order, whatever that of the rest: a row's bits depend on nothing else.
    const auto step = step_of<kApart<T>>(width);
    auto gw = load(grad_y + i, step);
    if (kGain) gw = gw * load(gain + i, width);
    const auto v = load(x + i, step);
    if constexpr (kCentred)
      return terms(gw * (v - s.mean), gw);
    else
      return terms(gw * v);
  });
}

// low <= v < high, of positive numbers, for which their bits serve as well: one comparison, and nan
// is not among them.
inline bool within(double v, double low, double high) {
  return read<uint64_t>(&v) - read<uint64_t>(&low) < read<uint64_t>(&high) - read<uint64_t>(&low);
}

// Smaller sums are made of products that A does not hold: of gw * x_hat where x is larger than
// that, of gw * (x - mean) where it is smaller.
template <class A>
NORMKIT_INLINE inline double least_sum(double rstd) {
  constexpr double kLeast = sizeof(A) == sizeof(float) ? 1e-25 : 1e-200;
  return rstd > 1 ? kLeast * rstd : kLeast;
}

// Whether A holds every step of a row's gradient, where its sums are of this size.
template <class A>
NORMKIT_INLINE inline bool held(double rstd, double size) {
  const double least = least_sum<A>(rstd);
  if constexpr (sizeof(A) == sizeof(float))
    return within(rstd, 0x1p-60, 0x1p41) & within(size, least, 1e18);
  else
    return within(rstd, 0x1p-300, 0x1p300) & within(size, least, 1e150);
}

// What follows from a row's sums. Returns how large they are; small ones no slope makes larger.
template <bool kCentred, class T, class A = accumulate_t<T>>
inline double set_pull(const RowBackward<T>& p, int64_t row, const Wide<1 + kCentred>& sums,
                       BackwardScalars<A>& s) {
  const double rstd = p.saved.rstd[row], rstd_n = rstd / double(p.n);
  const double slope = p.saved.slope ? double(p.saved.slope[row]) : 1.0;
  const double gw = kCentred ? sums.total(1) : 0.0;
  const double residual = kCentred ? double(p.saved.residual[row]) : 0.0;
  const double gw_x_hat = (sums.total(0) - residual * gw) * rstd;
  if (kCentred) s.shift = broadcast(A(-rstd_n * gw));
  s.pull = broadcast(A(-rstd_n * slope * gw_x_hat));
  const double size = __builtin_fabs(gw_x_hat) + __builtin_fabs(gw);
  return slope > 1 && size >= least_sum<A>(rstd) ? size * slope : size;
}

// Where it does not: whether care would help. Not where sums are small because the gradient is
// zero, or gain or x is, as in padding or behind a ReLU, and the gradient is not small itself. What
// the forward pass took care of has no other way.
template <class T, class A = accumulate_t<T>>
__attribute__((noinline)) bool needs_care(const RowBackward<T>& p, int64_t row) {
  const double rstd = p.saved.rstd[row];
  if (rstd < 0) return true;
  if (p.gain && held<A>(rstd, larger(rstd, 1.0)) && distance(p.gain, p.n, A(0)) == 0) return false;
  const T *x = p.x + row * p.x_stride, *grad_y = p.grad_y + row * p.grad_y_stride;
  const double upstream = distance(grad_y, p.n, A(0));
  const bool zero =
      upstream == 0 || (!p.centred && held<A>(1.0, upstream) && no_products(grad_y, x, p.n));
  return !zero && all_finite(grad_y, p.n) && all_finite(x, p.n);
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
// them, while the same of the rows `ahead` further on are fetched. A function of its own, as
// apply_row is.
template <int R, bool kCentred, Traffic kTraffic, bool kIsApart, class Wanted, class T,
          class A = accumulate_t<T>>
__attribute__((noinline)) void backward_tile(const RowBackward<T>& p, Wanted wanted, int64_t row,
                                             const BackwardScalars<A>* scalars, int64_t begin,
                                             int64_t end, A* grad_gain, A* grad_bias,
                                             int64_t ahead) {
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
  const int64_t x_ahead = ahead * p.x_stride, grad_y_ahead = ahead * p.grad_y_stride;
  const auto column = [&](int k, int64_t i, auto width) NORMKIT_INLINE {
    const auto step = step_of<kIsApart>(width);
    const auto one = broadcast_like(A(1), width);
    const auto gains = wanted.gain ? load(gain + i, width) : one;
    auto gain_sum = wanted.grad_gain ? load(grad_gain + i, width) : one;
    auto bias_sum = wanted.grad_bias ? load(grad_bias + i, width) : one;
    for (int r = 0; r < R; ++r) {
      fetch<kTraffic>(k, x[r] + x_ahead + i);
      fetch<kTraffic>(k, grad_y[r] + grad_y_ahead + i);
      const auto g = load(grad_y[r] + i, step);
      const auto x_hat = s[r].template x_hat<kCentred>(load(x[r] + i, step));
      gain_sum = fused(g, x_hat, gain_sum);
      bias_sum = bias_sum + g;
      if (!wanted.grad_x) continue;
      const auto pulled = kCentred ? fused(x_hat, s[r].pull, s[r].shift) : x_hat * s[r].pull;
      store_to<kTraffic>(grad_x[r] + i, fused(g * gains, s[r].rstd, pulled), step);
    }
    if (wanted.grad_gain) store(grad_gain + i, gain_sum, width);
    if (wanted.grad_bias) store(grad_bias + i, bias_sum, width);
  };
  // Several rows' lines begin at the same columns only where rows are whole lines; and where
  // nothing is written there are none.
  R > 1 || !wanted.grad_x ? sweep_of<T>(begin, end, column)
                          : sweep_lines<kTraffic>(grad_x[0], begin, end, column);
}

// As many as there are registers for; halves of several rows' lines are slow past the cache.
template <Traffic kTraffic, class T>
constexpr int kRowsPerTile = kWholeLines<T>                              ? 4
                             : kTraffic == Traffic::cached && !kPairs<T> ? 2
                                                                         : 1;

// Returns which of the rows, bit by bit, are left to be done with care.
template <bool kCentred, Traffic kTraffic, bool kIsApart, class Wanted, class T,
          class A = accumulate_t<T>>
inline uint64_t backward_group(const RowBackward<T>& p, Wanted wanted, int64_t row, int64_t count,
                               A* grad_gain, A* grad_bias) {
  BackwardScalars<A> s[kGroupRows];
  Wide<1 + kCentred> sums[kGroupRows];
  for (int64_t r = 0; r < count; ++r) {
    s[r] = saved_scalars<kCentred>(p, row + r);
    sums[r].clear();
  }
  for (int64_t begin = 0; wanted.grad_x && begin < p.n; begin += kTileColumns) {
    const int64_t end = p.n - begin < kTileColumns ? p.n : begin + kTileColumns;
    for (int64_t r = 0; r < count; ++r)
      wanted.gain ? add_products<kCentred, true>(p, row + r, s[r], begin, end, sums[r])
                  : add_products<kCentred, false>(p, row + r, s[r], begin, end, sums[r]);
  }
  uint64_t careful = 0;
  for (int64_t r = 0; r < count; ++r) {
    const double size = wanted.grad_x ? set_pull<kCentred>(p, row + r, sums[r], s[r]) : 1.0;
    careful |= uint64_t(!held<A>(p.saved.rstd[row + r], size)) << r;
  }
  for (uint64_t rest = careful; __builtin_expect(rest != 0, 0); rest &= rest - 1)
    if (!needs_care(p, row + __builtin_ctzll(rest))) careful ^= rest & -rest;
  const bool together = (kTraffic == Traffic::cached || by_lines(p.grad_x, p.n)) && !careful;
  const int64_t tile = together ? kTileColumns : p.n;
  for (int64_t begin = 0; begin < p.n; begin += tile) {
    const int64_t end = p.n - begin < tile ? p.n : begin + tile;
    int64_t r = 0;
    constexpr int kRows = kRowsPerTile<kTraffic, T>;
    for (; together && r + kRows <= count; r += kRows)
      backward_tile<kRows, kCentred, kTraffic, kIsApart>(p, wanted, row + r, &s[r], begin, end,
                                                         grad_gain, grad_bias, count);
    for (; r < count; ++r)
      if (!(careful >> r & 1))
        backward_tile<1, kCentred, kTraffic, kIsApart>(p, wanted, row + r, &s[r], begin, end,
                                                       grad_gain, grad_bias, count);
  }
  return careful;
}

// Rows that are summed, then applied: half as many where that keeps x and grad_y in the innermost
// cache, and past the cache, where the next ones are on their way meanwhile. Those that are applied
// one by one had better be summed so as well, unless they are short.
template <Traffic kTraffic, class T>
inline int64_t backward_rows(int64_t n) {
  constexpr int64_t kFewest = kRowsPerTile<kTraffic, T>;
  if (!kWholeLines<T>) return rows_of(1024, n) < kFewest ? kFewest : rows_of(1024, n);
  if (kTraffic == Traffic::streamed) return kGroupRows / 2;
  constexpr int64_t kInnermost = 24 << 10;
  const int64_t bytes = 2 * n * int64_t(sizeof(T));
  return kGroupRows * bytes > kInnermost && kGroupRows / 2 * bytes <= kInnermost ? kGroupRows / 2
                                                                                 : kGroupRows;
}

template <bool kCentred, Traffic kTraffic, bool kIsApart, class T, class A = accumulate_t<T>>
inline void backward_block(const RowBackward<T>& p, int64_t block) {
  const int64_t rows = backward_rows<kTraffic, T>(p.n);
  const int64_t first = block * p.block_rows;
  const int64_t last = first + p.block_rows < p.rows ? first + p.block_rows : p.rows;
  A* gain_sum = p.grad_gain ? p.grad_gain + block * p.partial_stride : nullptr;
  A* bias_sum = p.grad_bias ? p.grad_bias + block * p.partial_stride : nullptr;
  if (gain_sum) memset(gain_sum, 0, p.n * sizeof(A));
  if (bias_sum) memset(bias_sum, 0, p.n * sizeof(A));
  const Whatever some{p.gain != nullptr, p.grad_x != nullptr, p.grad_gain != nullptr,
                      p.grad_bias != nullptr};
  uint64_t careful = 0;
  for (int64_t row = first; row < last; row += rows) {
    const int64_t count = last - row < rows ? last - row : rows;
    const uint64_t left =
        Everything<kCentred>::asked(p)
            ? backward_group<kCentred, kTraffic, kIsApart>(p, Everything<kCentred>{}, row, count,
                                                           gain_sum, bias_sum)
            : backward_group<kCentred, kTraffic, kIsApart>(p, some, row, count, gain_sum, bias_sum);
    careful |= left << (row - first);
  }
  // Behind all others of their block: a sum's order does not depend on how rows are grouped, which
  // depends on the cache.
  for (; __builtin_expect(careful != 0, 0); careful &= careful - 1)
    p.careful(p, first + __builtin_ctzll(careful), gain_sum, bias_sum);
}

template <class T>
void row_backward(const RowBackward<T>& p, int64_t begin, int64_t end) {
  with_traffic(p.traffic, [&](auto traffic) {
    with_run<T>(p.run, [&](auto apart) {
      for (int64_t block = begin; block < end; ++block)
        p.saved.mean ? backward_block<true, traffic.value, apart.value>(p, block)
                     : backward_block<false, traffic.value, apart.value>(p, block);
    });
  });
}

// Of so many vectors of totals at once. Apart, a run of columns is four of them.
template <int kVectors, class A>
inline void add_some(const A* partials, int64_t count, int64_t stride, bool apart, double* total) {
  constexpr int L = kLanes<double>;
  Vec<double> sum[kVectors] = {};
  for (int64_t b = 0; b < count; ++b)
    for (int v = 0; v < kVectors; v += kLanes<A> / L)
      add_wide(&sum[v], load(partials + b * stride + v * L));
#if defined(NORMKIT_APART)
  for (int v = 0; apart && v < kVectors; v += 4) {
    store_together(total + v * L, sum[v], sum[v + 2]);
    store_together(total + (v + 2) * L, sum[v + 1], sum[v + 3]);
  }
  if (apart) return;
#endif
  for (int v = 0; v < kVectors; ++v) store(total + v * L, sum[v]);
}

// total[i] = the sum of `count` partials at i, each `stride` after the last, in their order.
// Several lines of each at a time: partials a power of two apart push one another out of the
// innermost cache.
template <class A>
void add_partials(const A* partials, int64_t count, int64_t stride, int64_t n, bool apart,
                  double* total) {
  constexpr int L = kLanes<double>;
  int64_t i = 0;
  for (; i + 8 * L <= n; i += 8 * L) add_some<8>(partials + i, count, stride, apart, total + i);
  for (; i + 4 * L <= n; i += 4 * L) add_some<4>(partials + i, count, stride, apart, total + i);
  sweep<double>(i, n, [&](int, int64_t at, auto width) NORMKIT_INLINE {
    Vec<double> sum{};
    for (int64_t b = 0; b < count; ++b) sum += load_as<double>(partials + b * stride + at, width);
    store(total + at, sum, width);
  });
}

}  // namespace normkit::NORMKIT_ISA
