// Loops over runs of elements, vector by vector, and sums along them.
#pragma once

#include "pair.h"

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

// sweep over elements of T, by the widest step there is for them.
template <class T, class Body>
NORMKIT_INLINE inline void sweep_of(int64_t begin, int64_t end, Body&& body) {
  if constexpr (kPairs<T>) {
    constexpr int64_t kStep = 2 * kLanes<float>;
    for (; begin + 2 * kStep <= end; begin += 2 * kStep) {
      body(0, begin, Twice{});
      body(2, begin + kStep, Twice{});
    }
    if (begin + kStep <= end) body(0, begin, Twice{}), begin += kStep;
  }
  sweep<accumulate_t<T>>(begin, end, body);
}

// Likewise, of what is computed in P.
template <class P, class T, class Body>
NORMKIT_INLINE inline void sweep_in(int64_t begin, int64_t end, Body&& body) {
  if constexpr (sizeof(P) == sizeof(float))
    sweep_of<T>(begin, end, body);
  else
    sweep<P>(begin, end, body);
}

// Row norms take rows in groups of at most so many, and columns in tiles.
constexpr int64_t kGroupRows = 8, kTileColumns = 1024;

// So many rows to a group that they have about `elements`.
inline int64_t rows_of(int64_t elements, int64_t n) {
  const int64_t rows = elements / n;
  return rows < 1 ? 1 : rows < kGroupRows ? rows : kGroupRows;
}

// Whether dense rows of n all begin at a line.
template <class T>
inline bool by_lines(const T* rows, int64_t n) {
  return (uintptr_t)rows % 64 == 0 && n * sizeof(T) % 64 == 0;
}

// How many elements of p's line lie before it, and how many to the next line.
template <class T>
inline int64_t past_line(const T* p) {
  return (uintptr_t)p % 64 / sizeof(T);
}
template <class T>
inline int64_t before_line(const T* p) {
  return (64 - (uintptr_t)p % 64) % 64 / sizeof(T);
}
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Whether the widest step there is writes whole lines. Where it does not, rows had better not be
// written by turns: halves of several lines are slow, past the cache above all.
template <class T>
constexpr bool kWholeLines = (1 + kPairs<T>)*sizeof(Stored<T>) >= 64;

// sweep over what is written to `to`. Only whole lines go past the cache: those that two rows or
// planes share do not.
template <Traffic kTraffic, class T, class Body>
NORMKIT_INLINE inline void sweep_lines(const T* to, int64_t begin, int64_t end, Body&& body) {
  if (kTraffic != Traffic::streamed) return sweep_of<T>(begin, end, body);
  constexpr int64_t kLine = 64 / sizeof(T);
  const auto piecewise = [&](int64_t i, int64_t stop) NORMKIT_INLINE {
    constexpr int L = kLanes<accumulate_t<T>>;
    for (; i < stop; i += L) body(0, i, Part{stop - i < L ? int(stop - i) : L});
  };
  const int64_t first = smaller(begin + before_line(to + begin), end);
  const int64_t last = first + (end - first) / kLine * kLine;
  piecewise(begin, first);
  sweep_of<T>(first, last, body);
  piecewise(last, end);
}

// ------------------------------------------------------------------------- sums
template <class A>
inline Vec<A> keep(Vec<A> v, Full) {
  return v;
}
// Whether a lane is one of the first n.
template <class A>
inline auto first_lanes(int n) {
  using Lane = decltype(Vec<A>{} < Vec<A>{});
  Lane lane{};
  for (int i = 0; i < kLanes<A>; ++i) lane[i] = i;
  return lane < Lane{} + n;
}
template <class A>
inline Vec<A> keep(Vec<A> v, Part part) {
  return first_lanes<A>(part.n) ? v : Vec<A>{};
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

template <class V>
inline V larger(V a, V b) {
  return a > b ? a : b;
}

// Adds the lanes of v to as many doubles.
NORMKIT_INLINE inline void add_wide(Vec<double>* sum, Vec<float> v) {
  sum[0] += half<0>(v);
  sum[1] += half<1>(v);
}
NORMKIT_INLINE inline void add_wide(Vec<double>* sum, Vec<double> v) { sum[0] += v; }

// Sums in the making: S of them, each as two vectors of doubles. To be cleared before use: an array
// of them is longer than what is used of it.
template <int S>
struct Wide {
  Vec<double> sum[S][2];
  Vec<double> peak;  // the largest that was added to the first sum at once, per lane

  void clear() {
    for (auto& halves : sum) halves[0] = halves[1] = Vec<double>{};
    peak = Vec<double>{};
  }
  double total(int s) const { return add_lanes(sum[s][0] + sum[s][1]); }
  double largest() const {
    double most = peak[0];
    for (int i = 1; i < kLanes<double>; ++i) most = peak[i] > most ? peak[i] : most;
    return most;
  }
};

// chain[k] += v
template <class A, class W>
NORMKIT_INLINE inline void extend(Vec<A>* chain, int k, Vec<A> v, W width) {
  chain[k] += keep<A>(v, width);
}
#if defined(NORMKIT_PAIRS)
template <class A>
NORMKIT_INLINE inline void extend(Vec<A>* chain, int k, const Pair& v, Twice) {
  chain[k] += v.low;
  chain[k + 1] += v.high;
}
#endif

// Likewise, all of v to one chain.
template <class A, class W>
NORMKIT_INLINE inline void extend_one(Vec<A>* chain, int k, Vec<A> v, W width) {
  extend<A>(chain, k, v, width);
}
#if defined(NORMKIT_PAIRS)
template <class A>
NORMKIT_INLINE inline void extend_one(Vec<A>* chain, int k, const Pair& v, Twice) {
  chain[k] += v.low;
  chain[k] += v.high;
}
#endif

// How S sums of terms made from elements of T are added: in chains of A, which then go on in
// double.
template <int S, class A, class T, bool kGradient>
struct Chains {
  // Four terms of float32 make a chain: a long row's sum is as good as a short one's, also where
  // equal terms would round the same way each time. A half's own rounding hides that, and so do
  // those of a gradient's terms.
  static constexpr int kTerms = sizeof(T) < sizeof(A) || kGradient ? 16 : 4;
  static constexpr bool kPeak = sizeof(T) == sizeof(A) && !kGradient;

  template <class Term>
  static NORMKIT_INLINE void add_chain(int64_t begin, int64_t end, Wide<S>& wide, Term& term) {
    Vec<A> chain[S][4];  // cleared by hand: GCC 12 calls for a string instruction, 30 cycles
    for (auto& c : chain) c[0] = c[1] = c[2] = c[3] = Vec<A>{};
    const auto add = [&](int k, int64_t i, auto width) NORMKIT_INLINE {
      const auto terms = term(i, width);
      for (int s = 0; s < S; ++s) extend<A>(chain[s], k, terms.of[s], width);
    };
    sweep_in<A, T>(begin, end, add);
    conclude(chain, wide);
  }

  static NORMKIT_INLINE void conclude(const Vec<A> (&chain)[S][4], Wide<S>& wide) {
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

  template <class Term>
  static NORMKIT_INLINE void add(int64_t n, Wide<S>& wide, Term& term) {
    constexpr int64_t kBlock = 4 * kTerms * kLanes<A>;
    int64_t begin = 0;
    for (; begin + kBlock <= n; begin += kBlock) add_chain(begin, begin + kBlock, wide, term);
    if (begin < n) add_chain(begin, n, wide, term);
  }

  // Of four runs of n elements at once, a chain each; term(run, i, width).
  template <class Term>
  static NORMKIT_INLINE void add_four(int64_t n, Wide<S>& wide, const Term& term) {
    constexpr int L = kLanes<A>;
    for (int64_t i = 0; i < n;) {
      const int64_t stop = smaller(n, i + kTerms * L);
      Vec<A> chain[S][4];
      for (auto& c : chain) c[0] = c[1] = c[2] = c[3] = Vec<A>{};
      const auto add = [&](auto width) NORMKIT_INLINE {
        for (int run = 0; run < 4; ++run) {
          const auto terms = term(run, i, width);
          for (int s = 0; s < S; ++s) extend_one<A>(chain[s], run, terms.of[s], width);
        }
      };
      if constexpr (kPairs<T> && sizeof(A) == sizeof(float))
        for (; i + 2 * L <= stop; i += 2 * L) add(Twice{});
      for (; i + L <= stop; i += L) add(Full{});
      if (i < stop) add(Part{int(stop - i)});
      i = stop;
      conclude(chain, wide);
    }
  }
};

// Of rows that need a second look.
template <class T, class A = accumulate_t<T>>
__attribute__((noinline)) bool all_finite(const T* x, int64_t n) {
  Vec<A> nothing{};
  sweep<A>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
    const Vec<A> v = load(x + i, width);
    nothing += v - v;
  });
  return add_lanes(nothing) == 0;
}
// How far they are from a number, all together.
template <class T, class A = accumulate_t<T>>
__attribute__((noinline)) double distance(const T* x, int64_t n, A to) {
  Vec<A> off{};
  sweep<A>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
    const Vec<A> d = keep<A>(load(x + i, width) - broadcast(to), width);
    off += larger(d, -d);
  });
  return add_lanes(off);
}
template <class T, class A = accumulate_t<T>>
inline bool all_equal(const T* x, int64_t n, A to) {
  return distance(x, n, to) == 0;
}

// All of them in A, their NaNs canonical; apart where that is asked for.
template <class T, class A = accumulate_t<T>>
void widen_all(const T* from, A* to, int64_t n, bool apart) {
  int64_t done = 0;
#if defined(NORMKIT_APART)
  if constexpr (sizeof(accumulate_t<T>) == sizeof(float)) {
    for (constexpr int L = kLanes<float>; apart && done + 2 * L <= n; done += 2 * L) {
      const Pair v = load_apart(from + done);
      store(to + done, Pair{canonical(v.low), canonical(v.high)}, Twice{});
    }
  }
#endif
  sweep<accumulate_t<T>>(done, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
    store(to + i, canonical(load(from + i, width)), width);
  });
}

// Whether no element is other than zero in both.
template <class T, class A = accumulate_t<T>>
__attribute__((noinline)) bool no_products(const T* x, const T* y, int64_t n) {
  Vec<A> both{};
  const Vec<A> none{};
  sweep<A>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
    const auto product = (load(x + i, width) != none) & (load(y + i, width) != none);
    both += product ? broadcast(A(1)) : none;
  });
  return add_lanes(both) == 0;
}

// The terms of S sums at one place.
template <class V, int S>
struct Terms {
  V of[S];
};
template <class V>
NORMKIT_INLINE inline Terms<V, 1> terms(const V& a) {
  return {{a}};
}
template <class V>
NORMKIT_INLINE inline Terms<V, 2> terms(const V& a, const V& b) {
  return {{a, b}};
}

// wide += the sums of term(i, width), made from n elements of T in A.
template <class A, class T, int S, class Term>
NORMKIT_INLINE inline void add_sums(int64_t n, Wide<S>& wide, Term&& term) {
  Chains<S, A, T, false>::add(n, wide, term);
}
template <class T, int S, class Term>
NORMKIT_INLINE inline void add_gradient_sums(int64_t n, Wide<S>& wide, Term&& term) {
  Chains<S, accumulate_t<T>, T, true>::add(n, wide, term);
}
// Likewise of one run of n elements, or of four at once; term(run, i, width).
template <int R, class Sums, class To, class Term>
NORMKIT_INLINE inline void add_runs(int64_t n, To& wide, const Term& term) {
  static_assert(R == 1 || R == 4);
  if constexpr (R == 4) {
    Sums::add_four(n, wide, term);
  } else {
    const auto only = [&](int64_t i, auto width) NORMKIT_INLINE { return term(0, i, width); };
    Sums::add(n, wide, only);
  }
}
template <int R, class A, class T, int S, class Term>
NORMKIT_INLINE inline void add_sums_of(int64_t n, Wide<S>& wide, const Term& term) {
  add_runs<R, Chains<S, A, T, false>>(n, wide, term);
}
template <int R, class T, int S, class Term>
NORMKIT_INLINE inline void add_gradient_sums_of(int64_t n, Wide<S>& wide, const Term& term) {
  add_runs<R, Chains<S, accumulate_t<T>, T, true>>(n, wide, term);
}

}  // namespace normkit::NORMKIT_ISA
