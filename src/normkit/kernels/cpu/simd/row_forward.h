// Row norms forward: LayerNorm (centred) and RMSNorm. Everything about a row happens while it is in
// cache, so x is read and y written once.
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
  const auto shifts = subtrahend(P(shift));
  Wide<1 + kCentred> sums;
  sums.clear();
  add_sums<P, T>(n, sums, [&](int64_t i, auto width) NORMKIT_INLINE {
    const auto v = load_unordered<P>(x + i, width);
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

// Shorter rows of float are summed in double: no crowd of roundings averages out.
constexpr int64_t kFewTerms = 256;

// Of `count` rows, step by step for all of them: a step's result takes a while, but the next row
// does not wait for it.
template <bool kCentred, class T, class A = accumulate_t<T>>
inline void group_statistics(const T* x, const RowForward<T>& p, int64_t count, Scalars<A>* s) {
  A shift[kGroupRows] = {};
  Wide<1 + kCentred> sums[kGroupRows];
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
// x_hat (rstd's rounding, the product's own) is added back, which leaves an output within about one
// unit in the last place; without it five roundings add up. A half's own rounding hides them, but
// not what the mean's takes away, which a gain shows that is large at an x next to the mean.
template <bool kCentred, class T, class A = accumulate_t<T>>
struct Normalizer {
  Subtrahend<Vec<A>> mean;
  Vec<A> rstd, rstd_rest, shift;

  explicit Normalizer(const Scalars<A>& s)
      : mean(subtrahend(s.centre.mean)),
        rstd(broadcast(A(s.rstd))),
        rstd_rest(broadcast(A(s.rstd - double(A(s.rstd))))),
        shift(broadcast(A(-double(s.centre.residual) * s.rstd))) {}

  template <Affine kAffine, class V>
  NORMKIT_INLINE V apply(const V& x, const V& gain, const V& bias) const {
    constexpr bool kHalf = sizeof(T) < sizeof(A);
    V d = x;
    if constexpr (kCentred) d = x - mean;
    if constexpr (kHalf || kAffine == Affine::none || !kCentred) {
      V v = d * rstd;
      if constexpr (kHalf && kCentred) v = fused(d, rstd, shift);
      if constexpr (!kHalf)
        v = fused(d, rstd, kCentred ? fused(d, rstd_rest, shift) : d * rstd_rest);
      if (kAffine == Affine::none) return v;
      return kAffine == Affine::gain ? v * gain : fused(v, gain, bias);
    } else {
      const V product = d * rstd, small = fused(d, rstd_rest, shift);
      const V rest = kFused ? fused(d, rstd, -product) + small : small;
      return fused(product, gain, kAffine == Affine::gain ? rest * gain : fused(rest, gain, bias));
    }
  }
};

// Columns [begin, end) of a row, while the same of a row `ahead` elements further is fetched. A
// function of its own: in one with a dozen loops the compiler runs out of registers for the
// vectors.
template <bool kCentred, Traffic kTraffic, bool kIsApart, Affine kAffine, class T,
          class A = accumulate_t<T>>
__attribute__((noinline)) void apply_row(const T* x, T* y, const RowForward<T>& p,
                                         const Scalars<A>& s, int64_t begin, int64_t end,
                                         int64_t ahead) {
  const Normalizer<kCentred, T> normalize(s);
  const A *gain = p.gain, *bias = p.bias;
  sweep_lines<kTraffic>(y, begin, end, [&](int k, int64_t i, auto width) NORMKIT_INLINE {
    fetch<kTraffic>(k, x + ahead + i);
    const auto step = step_of<kIsApart>(width);
    const auto v = load(x + i, step);
    auto gains = v, biases = v;  // not used where there are none
    if (kAffine != Affine::none) gains = load(gain + i, width);
    if (kAffine == Affine::gain_and_bias) biases = load(bias + i, width);
    store_to<kTraffic>(y + i, normalize.template apply<kAffine>(v, gains, biases), step);
  });
}

// Whether A held the squares and holds rstd: neither are too large or small for it, nor do squares
// vanish beside no eps (outside the root it is eps squared that stands beside them). And whether it
// holds what the rounding of the mean loses.
template <class A>
inline bool in_range(double var, double rstd, double eps, bool outside) {
  constexpr bool kFloat = sizeof(A) == sizeof(float);
  constexpr double kFlat = kFloat ? 0x1p-60 : 0x1p-490, kLeast = kFloat ? 1e-25 : 1e-280;
  constexpr double kLeastOutside = kFloat ? 3e-13 : 1e-140,
                   kLeastBesideEps = kFloat ? 1e-50 : 1e-280;
  return rstd > kFlat &&
         (var > kLeast || (eps > (outside ? kLeastOutside : kLeast) && var > kLeastBesideEps));
}
// Where it does not, elements that are equal need no care unless their rstd is beyond A, and others
// would not be helped by it where some are not finite.
template <bool kCentred, class T, class A = accumulate_t<T>>
__attribute__((noinline)) bool needs_care(const T* x, int64_t n, double rstd) {
  constexpr double kMost = sizeof(A) == sizeof(float) ? 1e30 : 1e300;
  return !(rstd > 1 / kMost && rstd < kMost && all_equal(x, n, kCentred ? load_one(x) : A(0))) &&
         all_finite(x, n);
}

template <class A>
inline void save_row(const RowStatistics<A>& save, int64_t row, const Scalars<A>& s) {
  if (save.rstd) save.rstd[row] = A(s.rstd);
  if (save.mean) save.mean[row] = s.centre.mean;
  if (save.residual) save.residual[row] = s.centre.residual;
  if (save.slope) save.slope[row] = A(s.slope);
}

// How many rows are summed before they are applied: enough that a row's sums, root and shift need
// not be waited for, and few where the rows would leave the innermost cache meanwhile, or, past the
// cache, reading and writing had better alternate sooner.
template <Traffic kTraffic, class T>
inline int64_t forward_rows(int64_t n) {
  if (!kWholeLines<T>) return rows_of(4096, n);
  return kTraffic == Traffic::streamed ? 2 : kGroupRows;
}

// All rows of a group are summed, then all are applied, tile by tile of their columns, so that gain
// and bias are read from the innermost cache.
template <bool kCentred, Traffic kTraffic, bool kIsApart, Affine kAffine, class T,
          class A = accumulate_t<T>>
inline void forward_group(const RowForward<T>& p, int64_t row, int64_t count) {
  const T* x = p.x + row * p.x_stride;
  T* y = p.y + row * p.n;
  Scalars<A> s[kGroupRows];
  bool plain[kGroupRows];
  group_statistics<kCentred>(x, p, count, s);
  for (int64_t r = 0; r < count; ++r)
    plain[r] = in_range<A>(s[r].var, s[r].rstd, p.eps, p.outside) ||
               !needs_care<kCentred>(x + r * p.x_stride, p.n, s[r].rstd);
  const int64_t tile = kTraffic == Traffic::cached || by_lines(p.y, p.n) ? kTileColumns : p.n;
  for (int64_t begin = 0; begin < p.n; begin += tile) {
    const int64_t end = p.n - begin < tile ? p.n : begin + tile;
    for (int64_t r = 0; r < count; ++r)
      if (plain[r])
        apply_row<kCentred, kTraffic, kIsApart, kAffine>(x + r * p.x_stride, y + r * p.n, p, s[r],
                                                         begin, end, count * p.x_stride);
  }
  for (int64_t r = 0; r < count; ++r) {
    if (plain[r])
      save_row(p.save, row + r, s[r]);
    else
      p.careful(p, row + r);
  }
}

template <bool kCentred, Traffic kTraffic, bool kIsApart, class T>
inline void forward_range(const RowForward<T>& p, int64_t row, int64_t end) {
  const int64_t rows = forward_rows<kTraffic, T>(p.n);
  for (; row < end; row += rows) {
    const int64_t count = end - row < rows ? end - row : rows;
    if (p.bias)
      forward_group<kCentred, kTraffic, kIsApart, Affine::gain_and_bias>(p, row, count);
    else if (p.gain)
      forward_group<kCentred, kTraffic, kIsApart, Affine::gain>(p, row, count);
    else
      forward_group<kCentred, kTraffic, kIsApart, Affine::none>(p, row, count);
  }
}

template <class T>
void row_forward(const RowForward<T>& p, int64_t begin, int64_t end) {
  with_traffic(p.traffic, [&](auto traffic) {
    with_run<T>(p.run, [&](auto apart) {
      p.centred ? forward_range<true, traffic.value, apart.value>(p, begin, end)
                : forward_range<false, traffic.value, apart.value>(p, begin, end);
    });
  });
}

}  // namespace normkit::NORMKIT_ISA
