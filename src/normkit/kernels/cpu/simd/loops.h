// Loops over runs of elements, vector by vector, and sums along them.
#pragma once

#include "vector.h"

namespace normkit::NORMKIT_ISA {

// body(k, i, width) for every vector of [begin, end); k in 0..3 names an independent chain of
// additions, enough of them to hide an addition's latency.
template <class A, class Body>
NORMKIT_INLINE inline void sweep(int64_t begin, int64_t end, Body&& body) {
  constexpr int L = kLanes<A>;
  int64_t i = begin;
  for (; i + 4 * L <= end; i += 4 * L) {
    body(0, i, Full{});
    body(1, i + L, Full{});
    body(2, i + 2 * L, Full{});
    body(3, i + 3 * L, Full{});
  }
  if (i + L <= end) body(0, i, Full{}), i += L;
  if (i + L <= end) body(1, i, Full{}), i += L;
  if (i + L <= end) body(2, i, Full{}), i += L;
  if (i < end) body(3, i, Part{int(end - i)});
}

// Whether dense rows of n all begin at a line.
template <class T>
inline bool by_lines(const T* rows, int64_t n) {
  return (uintptr_t)rows % 64 == 0 && n * sizeof(T) % 64 == 0;
}

// sweep over what is written to `to`. Only whole lines go past the cache: those that two rows or
// planes share do not.
template <Traffic kTraffic, class A, class T, class Body>
NORMKIT_INLINE inline void sweep_lines(const T* to, int64_t begin, int64_t end, Body&& body) {
  if (kTraffic != Traffic::streamed) return sweep<A>(begin, end, body);
  constexpr int64_t kLine = 64 / sizeof(T);
  const auto piecewise = [&](int64_t i, int64_t stop) NORMKIT_INLINE {
    for (; i < stop; i += kLanes<A>)
      body(0, i, Part{stop - i < kLanes<A> ? int(stop - i) : kLanes<A>});
  };
  const int64_t before = (64 - int64_t((uintptr_t)(to + begin) % 64)) % 64 / int64_t(sizeof(T));
  const int64_t first = begin + before < end ? begin + before : end;
  const int64_t last = first + (end - first) / kLine * kLine;
  piecewise(begin, first);
  sweep<A>(first, last, body);
  piecewise(last, end);
}

// ------------------------------------------------------------------------- sums
template <class A>
inline Vec<A> keep(Vec<A> v, Full) {
  return v;
}
template <class A>
inline Vec<A> keep(Vec<A> v, Part part) {
  using Lane = decltype(v < v);
  Lane lane{};
  for (int i = 0; i < kLanes<A>; ++i) lane[i] = i;
  return lane < Lane{} + part.n ? v : Vec<A>{};
}

inline double add_lanes(Vec<double> v) {
#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
  typedef double Half __attribute__((vector_size(32)));
  const Half sum = (Half)_mm512_maskz_extractf64x4_pd(0xf, (__m512d)v, 0) +
                   (Half)_mm512_maskz_extractf64x4_pd(0xf, (__m512d)v, 1);
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
#else
  double lane[kLanes<double>];
  for (int i = 0; i < kLanes<double>; ++i) lane[i] = v[i];
  for (int half = kLanes<double> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
#endif
}
inline double add_lanes(Vec<float> v) { return add_lanes(half<0>(v) + half<1>(v)); }

// Four terms make a chain in A, then the sum goes on in double: a long row's sum is as good as a
// short one's, also where equal terms would round the same way each time.
constexpr int kTermsPerChain = 4;

template <class V>
inline V larger(V a, V b) {
  return a > b ? a : b;
}

// Sums in the making: S of them, each as two vectors of doubles.
template <int S>
struct Wide {
  Vec<double> sum[S][2] = {};
  Vec<double> peak = {};  // the largest that was added to the first sum at once, per lane

  double total(int s) const { return add_lanes(sum[s][0] + sum[s][1]); }
  double largest() const {
    double most = peak[0];
    for (int i = 1; i < kLanes<double>; ++i) most = peak[i] > most ? peak[i] : most;
    return most;
  }
};

// Of a gradient's sums, each term's own rounding is as large: sixteen.
constexpr int kGradientTermsPerChain = 16;

// wide += the sums of S terms over [begin, end) in chains of A; term(k, i, width, out) fills
// out[0..S).
template <int S, class A, bool kPeak, class Term>
NORMKIT_INLINE inline void add_chains(int64_t begin, int64_t end, Wide<S>& wide, Term&& term) {
  Vec<A> chain[S][4] = {};
  sweep<A>(begin, end, [&](int k, int64_t i, auto width) NORMKIT_INLINE {
    Vec<A> out[S];
    term(k, i, width, out);
    for (int s = 0; s < S; ++s) chain[s][k] += keep<A>(out[s], width);
  });
  for (int s = 0; s < S; ++s) {
    const Vec<A> sum = (chain[s][0] + chain[s][1]) + (chain[s][2] + chain[s][3]);
    if constexpr (sizeof(A) == sizeof(double)) {
      wide.sum[s][0] += sum;
    } else {
      const Vec<double> low = half<0>(sum), high = half<1>(sum);
      wide.sum[s][0] += low;
      wide.sum[s][1] += high;
      if (kPeak && s == 0) wide.peak = larger(wide.peak, larger(low, high));
    }
  }
}

template <int S, class A, bool kPeak, int kTerms, class Term>
NORMKIT_INLINE inline void add_blocks(int64_t n, Wide<S>& wide, Term&& term) {
  constexpr int64_t kBlock = 4 * kTerms * kLanes<A>;
  int64_t begin = 0;
  for (; begin + kBlock <= n; begin += kBlock)
    add_chains<S, A, kPeak>(begin, begin + kBlock, wide, term);
  if (begin < n) add_chains<S, A, kPeak>(begin, n, wide, term);
}

template <int S, class A, class Term>
NORMKIT_INLINE inline void add_sums(int64_t n, Wide<S>& wide, Term&& term) {
  add_blocks<S, A, true, kTermsPerChain>(n, wide, term);
}
template <int S, class A, class Term>
NORMKIT_INLINE inline void add_gradient_sums(int64_t n, Wide<S>& wide, Term&& term) {
  add_blocks<S, A, false, kGradientTermsPerChain>(n, wide, term);
}

}  // namespace normkit::NORMKIT_ISA
