// Channel norms: BatchNorm's sums, application and gradient, for planes of adjacent positions
// (planar) and for adjacent channels (interleaved).
#pragma once

#include "loops.h"

namespace normkit::NORMKIT_ISA {

// The numbers of channel c in every lane; in the first lanes, those of the next in the others; or
// of the channels from c on, one in each.
struct Same {};
struct Both {
  int first;
};
template <class A>
inline Vec<A> lanes(const A* numbers, Same) {
  return broadcast(*numbers);
}
template <class A>
inline Vec<A> lanes(const A* numbers, Both both) {
  return first_lanes<A>(both.first) ? broadcast(numbers[0]) : broadcast(numbers[1]);
}
template <class A, class W>
inline auto lanes(const A* numbers, W width) {
  return load(numbers, width);
}

// What holds them.
template <class A, class W>
using Lanes = decltype(lanes((const A*)nullptr, W{}));

template <class A, class W>
NORMKIT_INLINE inline Apply<Lanes<A, W>> vectors(const Apply<const A*>& a, int64_t c, W w) {
  return {lanes(a.mean + c, w), lanes(a.scale + c, w), lanes(a.scale_rest + c, w),
          lanes(a.bias + c, w)};
}
template <class A, class W>
NORMKIT_INLINE inline Hat<Lanes<A, W>> vectors(const Hat<const A*>& h, int64_t c, W w) {
  return {lanes(h.mean + c, w), lanes(h.rstd + c, w), lanes(h.shift + c, w)};
}
template <class A, class W>
NORMKIT_INLINE inline Gradient<Lanes<A, W>> vectors(const Gradient<const A*>& g, int64_t c, W w) {
  return {vectors(g.hat, c, w), lanes(g.scale + c, w), lanes(g.pull + c, w), lanes(g.shift + c, w)};
}

template <class T, class N, class V>
NORMKIT_INLINE inline V applied(const Apply<N>& a, const V& x) {
  const V d = x - a.mean;
  // A half's rounding hides the rest; a double has none.
  if (sizeof(T) != sizeof(float)) return fused(d, a.scale, a.bias);
  return fused(d, a.scale, fused(d, a.scale_rest, a.bias));
}
template <class N, class V>
NORMKIT_INLINE inline V x_hat(const Hat<N>& h, const V& x) {
  return fused(x - h.mean, h.rstd, h.shift);
}
template <class N, class V>
NORMKIT_INLINE inline V gradient(const Gradient<N>& a, const V& g, const V& x) {
  return fused(g, a.scale, fused(x_hat(a.hat, x), a.pull, a.shift));
}

// ----------------------------------------------------------------------- planar
// body(n, c) for every plane, in the order they lie in memory.
template <class Body>
NORMKIT_INLINE inline void by_planes(const Box& box, Body&& body) {
  for (int64_t n = 0; n < box.batch; ++n)
    for (int64_t c = 0; c < box.channels; ++c) body(n, c);
}

// Two sums for every channel, plane by plane as they lie in memory; add(n, c, wide) adds a plane,
// keep(c, sums) takes the result.
template <class Add, class Keep>
NORMKIT_INLINE inline void sum_planes(const Box& box, Add&& add, Keep&& keep) {
  constexpr int64_t kTogether = 32;
  for (int64_t first = 0; first < box.channels; first += kTogether) {
    const int64_t rest = box.channels - first, count = rest < kTogether ? rest : kTogether;
    Wide<2> wide[kTogether];
    for (int64_t c = 0; c < count; ++c) wide[c].clear();
    by_planes({box.batch, count, box.length, box.traffic},
              [&](int64_t n, int64_t c) NORMKIT_INLINE { add(n, first + c, wide[c]); });
    for (int64_t c = 0; c < count; ++c) keep(first + c, wide[c]);
  }
}

template <class P, class T, class A>
inline void sums_in(Planes<const T> x, const Box& box, const A* shift, Sums* sums) {
  sum_planes(
      box,
      [&](int64_t n, int64_t c, Wide<2>& wide) NORMKIT_INLINE {
        const T* from = x.at(n, c);
        const Vec<P> shifts = broadcast(P(shift[c]));
        add_sums<P, T>(box.length, wide, [&](int64_t i, auto width) NORMKIT_INLINE {
          const auto d = load_unordered<P>(from + i, width) - shifts;
          return terms(d * d, d);
        });
      },
      [&](int64_t c, const Wide<2>& w)
          NORMKIT_INLINE { sums[c] = {w.total(1), w.total(0), w.largest()}; });
}

template <class T, class A = accumulate_t<T>>
void planar_sums(Planes<const T> x, Box box, const A* shift, bool exact, Sums* sums) {
  exact ? sums_in<double>(x, box, shift, sums) : sums_in<A>(x, box, shift, sums);
}

template <class T, class A = accumulate_t<T>>
void planar_gradient_sums(Planes<const T> grad_y, Planes<const T> x, Box box,
                          Hat<const A*> channels, GradientSums* sums) {
  sum_planes(
      box,
      [&](int64_t n, int64_t c, Wide<2>& wide) NORMKIT_INLINE {
        const auto numbers = vectors(channels, c, Same{});
        const T *g = grad_y.at(n, c), *from = x.at(n, c);
        add_gradient_sums<T>(box.length, wide, [&](int64_t i, auto width) NORMKIT_INLINE {
          const auto v = load_unordered<A>(g + i, width);
          return terms(v, v * x_hat(numbers, load_unordered<A>(from + i, width)));
        });
      },
      [&](int64_t c, const Wide<2>& w) NORMKIT_INLINE { sums[c] = {w.total(0), w.total(1)}; });
}

// Planes of a sample that lie one after the other, as many as are handled as one run: whole lines
// are written then, and no vector but the first and last are parts. Planes shorter than a line are
// handled one by one: the first line then begins in the first plane, and no vector belongs to more
// than two.
template <class T>
inline int64_t planes_together(const Box& box, bool adjoin) {
  return adjoin && box.length * int64_t(sizeof(T)) >= 64 ? box.channels : 1;
}

// body(numbers, k, i, width) for every vector of `planes` planes that are written to `to`, the
// numbers being those of numbers_of(plane, Same) or numbers_of(plane, Both). Only whole lines go
// past the cache, as in sweep_lines.
template <Traffic kTraffic, class T, class NumbersOf, class Body>
NORMKIT_INLINE inline void sweep_planes(const T* to, int64_t length, int64_t planes,
                                        NumbersOf&& numbers_of, Body&& body) {
  constexpr int64_t L = kLanes<accumulate_t<T>>;
  constexpr bool kLines = kTraffic == Traffic::streamed;
  int64_t i = 0;
  const auto parts = [&](const auto& numbers, int64_t end) NORMKIT_INLINE {
    for (; i < end; i += smaller(end - i, L)) body(numbers, 0, i, Part{int(smaller(end - i, L))});
  };
  if (kLines || planes > 1) parts(numbers_of(0, Same{}), smaller(before_line(to), length));
  for (int64_t plane = 0; plane < planes; ++plane) {
    const bool last = plane + 1 == planes;
    const int64_t end = (plane + 1) * length;
    const int64_t whole = larger(kLines && last ? end - past_line(to + end) : end, i);
    const auto numbers = numbers_of(plane, Same{});
    // The first of two vectors may lie in the plane before.
    if (kPairs<T> && kLines && i + L <= whole && past_line(to + i) % (2 * L) != 0) {
      body(numbers, 0, i, Full{});
      i += L;
    }
    const int64_t vectors = (whole - i) / L * L;
    sweep_of<T>(i, i + vectors,
                [&](int k, int64_t j, auto width) NORMKIT_INLINE { body(numbers, k, j, width); });
    i += vectors;
    if (last) {
      parts(numbers, end);
    } else if (i < end) {
      body(numbers_of(plane, Both{int(end - i)}), 0, i, Full{});
      i += L;
    }
  }
}

// f(n, c, planes) for every run of planes.
template <class F>
NORMKIT_INLINE inline void by_runs(const Box& box, int64_t together, F&& f) {
  for (int64_t n = 0; n < box.batch; ++n)
    for (int64_t c = 0; c < box.channels; c += together) f(n, c, together);
}

template <class T, class A = accumulate_t<T>>
void planar_apply(Planes<const T> x, Planes<T> y, Box box, Apply<const A*> channels) {
  const int64_t together =
      planes_together<T>(box, x.stride_c == box.length && y.stride_c == box.length);
  with_traffic(box.traffic, [&](auto traffic) {
    by_runs(box, together, [&](int64_t n, int64_t c, int64_t planes) NORMKIT_INLINE {
      const T *from = x.at(n, c), *next = x.at(n, c + box.ahead);
      T* to = y.at(n, c);
      sweep_planes<traffic.value>(
          to, box.length, planes,
          [&](int64_t plane, auto which)
              NORMKIT_INLINE { return vectors(channels, c + plane, which); },
          [&](const auto& numbers, int k, int64_t i, auto width) NORMKIT_INLINE {
            if (box.ahead) fetch<traffic.value>(k, next + i);
            const auto v = applied<T>(numbers, load(from + i, width));
            store_to<traffic.value>(to + i, v, width);
          });
    });
  });
}

template <class T, class A = accumulate_t<T>>
void planar_gradient(Planes<const T> grad_y, Planes<const T> x, Planes<T> grad_x, Box box,
                     Gradient<const A*> channels) {
  const int64_t together =
      planes_together<T>(box, grad_y.stride_c == box.length && x.stride_c == box.length &&
                                  grad_x.stride_c == box.length);
  with_traffic(box.traffic, [&](auto traffic) {
    by_runs(box, together, [&](int64_t n, int64_t c, int64_t planes) NORMKIT_INLINE {
      const T *g = grad_y.at(n, c), *from = x.at(n, c);
      const T *next_g = grad_y.at(n, c + box.ahead), *next = x.at(n, c + box.ahead);
      T* to = grad_x.at(n, c);
      sweep_planes<traffic.value>(
          to, box.length, planes,
          [&](int64_t plane, auto which)
              NORMKIT_INLINE { return vectors(channels, c + plane, which); },
          [&](const auto& numbers, int k, int64_t i, auto width) NORMKIT_INLINE {
            if (box.ahead) fetch<traffic.value>(k, next_g + i), fetch<traffic.value>(k, next + i);
            const auto v = gradient(numbers, load(g + i, width), load(from + i, width));
            store_to<traffic.value>(to + i, v, width);
          });
    });
  });
}

// ------------------------------------------------------------------ interleaved
constexpr int64_t kRowsAhead = 8;  // how far ahead the next rows are fetched

// Rows handled at once, so that a channel's numbers are loaded once for all of them.
template <int R>
struct AtOnce {
  static constexpr int rows = R;
};

// body(at_once, row, c, n) for the rows [first, last), R at a time, and n channels from c on.
template <int R, class Body>
NORMKIT_INLINE inline void by_rows(int64_t first, int64_t last, int64_t c, int64_t n, Body&& body) {
  int64_t row = first;
  for (; row + R <= last; row += R) body(AtOnce<R>{}, row, c, n);
  for (; row < last; ++row) body(AtOnce<1>{}, row, c, n);
}

// to[i] = f(to[i], v[i]) in double.
template <class W, class F>
NORMKIT_INLINE inline void update(double* to, Vec<double> v, W width, const F& f) {
  store(to, f(load(to, width), v), width);
}
template <class F>
NORMKIT_INLINE inline void update(double* to, Vec<float> v, Full, const F& f) {
  update(to, half<0>(v), Full{}, f);
  update(to + kLanes<double>, half<1>(v), Full{}, f);
}
template <class F>
NORMKIT_INLINE inline void update(double* to, Vec<float> v, Part part, const F& f) {
  constexpr int L = kLanes<double>;
  update(to, half<0>(v), Part{part.n < L ? part.n : L}, f);
  if (part.n > L) update(to + L, half<1>(v), Part{part.n - L}, f);
}
#if defined(NORMKIT_PAIRS)
template <class F>
NORMKIT_INLINE inline void update(double* to, const Pair& v, Twice, const F& f) {
  update(to, v.low, Full{}, f);
  update(to + kLanes<float>, v.high, Full{}, f);
}
#endif
template <class V, class W>
NORMKIT_INLINE inline void add_to(double* total, const V& v, W width) {
  update(total, v, width, [](Vec<double> a, Vec<double> b) { return a + b; });
}
template <class V, class W>
NORMKIT_INLINE inline void raise_to(double* peak, const V& v, W width) {
  update(peak, v, width, [](Vec<double> a, Vec<double> b) { return larger(a, b); });
}

// Two sums for every channel: in P over a pass of a few rows, which stay in the innermost cache,
// then in double. add(at_once, row, c, n, first, second) adds rows to the sums of n channels from c
// on; keep(c, n, first, second) takes them.
template <class P, int R, class Add, class Keep>
NORMKIT_INLINE inline void sum_rows(const Span& span, Add&& add, Keep&& keep) {
  constexpr int64_t kRowsPerPass = 16, kTile = 1024;
  alignas(64) P first[kTile], second[kTile];
  for (int64_t row = 0; row < span.rows; row += kRowsPerPass) {
    const int64_t last = row + kRowsPerPass < span.rows ? row + kRowsPerPass : span.rows;
    for (int64_t c = 0; c < span.channels; c += kTile) {
      const int64_t n = span.channels - c < kTile ? span.channels - c : kTile;
      memset(first, 0, n * sizeof(P));
      memset(second, 0, n * sizeof(P));
      by_rows<R>(row, last, c, n,
                 [&](auto at_once, int64_t r, int64_t from, int64_t count)
                     NORMKIT_INLINE { add(at_once, r, from, count, first, second); });
      keep(c, n, first, second);
    }
  }
}

template <Traffic kTraffic, class P, class T, class A>
inline void column_sums(Rows<const T> x, const Span& span, const A* shift, double* sum,
                        double* squares, double* peak) {
  sum_rows<P, 4>(
      span,
      [&](auto at_once, int64_t row, int64_t c, int64_t n, P* s, P* q) NORMKIT_INLINE {
        const T* from = x.data + row * x.stride + c;
        sweep_in<P, T>(0, n, [&](int k, int64_t i, auto width) NORMKIT_INLINE {
          const auto shifts = load_as<P>(shift + c + i, width);
          const auto s_sum = load(s + i, width), q_sum = load(q + i, width);
          auto d_sum = decltype(s_sum + s_sum){}, dd_sum = d_sum;  // of these rows: a shorter chain
          for (int r = 0; r < at_once.rows; ++r) {
            fetch<kTraffic>(k, from + (r + kRowsAhead) * x.stride + i);
            const auto d = load_as<P>(from + r * x.stride + i, width) - shifts;
            d_sum = d_sum + d;
            dd_sum = fused(d, d, dd_sum);
          }
          store(s + i, s_sum + d_sum, width);
          store(q + i, q_sum + dd_sum, width);
        });
      },
      [&](int64_t c, int64_t n, const P* s, const P* q) NORMKIT_INLINE {
        sweep_in<P, T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
          add_to(sum + c + i, load(s + i, width), width);
          add_to(squares + c + i, load(q + i, width), width);
          if (sizeof(P) == sizeof(float)) raise_to(peak + c + i, load(q + i, width), width);
        });
      });
}

template <class T, class A = accumulate_t<T>>
void interleaved_sums(Rows<const T> x, Span span, const A* shift, bool exact, double* sum,
                      double* squares, double* peak) {
  for (int64_t c = 0; c < span.channels; ++c) sum[c] = squares[c] = peak[c] = 0;
  with_traffic(span.traffic, [&](auto traffic) {
    exact ? column_sums<traffic.value, double>(x, span, shift, sum, squares, peak)
          : column_sums<traffic.value, A>(x, span, shift, sum, squares, peak);
  });
}

template <class T, class A = accumulate_t<T>>
void interleaved_gradient_sums(Rows<const T> grad_y, Rows<const T> x, Span span,
                               Hat<const A*> channels, double* grad, double* grad_x_hat) {
  for (int64_t c = 0; c < span.channels; ++c) grad[c] = grad_x_hat[c] = 0;
  sum_rows<A, 2>(
      span,
      [&](auto at_once, int64_t row, int64_t c, int64_t n, A* s, A* sx) NORMKIT_INLINE {
        const T *g = grad_y.data + row * grad_y.stride + c, *from = x.data + row * x.stride + c;
        sweep_of<T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
          const auto numbers = vectors(channels, c + i, width);
          auto g_sum = load(s + i, width), gx_sum = load(sx + i, width);
          for (int r = 0; r < at_once.rows; ++r) {
            const auto v = load(g + r * grad_y.stride + i, width);
            g_sum = g_sum + v;
            gx_sum = fused(v, x_hat(numbers, load(from + r * x.stride + i, width)), gx_sum);
          }
          store(s + i, g_sum, width);
          store(sx + i, gx_sum, width);
        });
      },
      [&](int64_t c, int64_t n, const A* s, const A* sx) NORMKIT_INLINE {
        sweep_of<T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
          add_to(grad + c + i, load(s + i, width), width);
          add_to(grad_x_hat + c + i, load(sx + i, width), width);
        });
      });
}

// All rows, so many channels at a time that their numbers stay in the innermost cache.
template <class T, class Body>
NORMKIT_INLINE inline void by_tiles(const Span& span, Body&& body) {
  constexpr int64_t kTile = 1024;
  constexpr int kRows = kWholeLines<T> ? 2 : 1;
  for (int64_t c = 0; c < span.channels; c += kTile)
    by_rows<kRows>(0, span.rows, c, span.channels - c < kTile ? span.channels - c : kTile, body);
}

// Only rows that all begin at a line can go past the cache.
template <class T>
inline Traffic for_rows(const Span& span, const T* to) {
  return by_lines(to, span.channels) ? span.traffic : Traffic::cached;
}

template <class T, class A = accumulate_t<T>>
void interleaved_apply(Rows<const T> x, T* y, Span span, Apply<const A*> channels) {
  with_traffic(for_rows(span, y), [&](auto traffic) {
    by_tiles<T>(span, [&](auto at_once, int64_t row, int64_t c, int64_t n) NORMKIT_INLINE {
      const T* from = x.data + row * x.stride + c;
      T* to = y + row * span.channels + c;
      sweep_of<T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
        const auto numbers = vectors(channels, c + i, width);
        for (int r = 0; r < at_once.rows; ++r) {
          const auto v = load(from + r * x.stride + i, width);
          store_to<traffic.value>(to + r * span.channels + i, applied<T>(numbers, v), width);
        }
      });
    });
  });
}

template <class T, class A = accumulate_t<T>>
void interleaved_gradient(Rows<const T> grad_y, Rows<const T> x, T* grad_x, Span span,
                          Gradient<const A*> channels) {
  with_traffic(for_rows(span, grad_x), [&](auto traffic) {
    by_tiles<T>(span, [&](auto at_once, int64_t row, int64_t c, int64_t n) NORMKIT_INLINE {
      const T* g = grad_y.data + row * grad_y.stride + c;
      const T* from = x.data + row * x.stride + c;
      T* to = grad_x + row * span.channels + c;
      sweep_of<T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
        const auto numbers = vectors(channels, c + i, width);
        for (int r = 0; r < at_once.rows; ++r) {
          const auto v = load(from + r * x.stride + i, width);
          const auto grad = load(g + r * grad_y.stride + i, width);
          store_to<traffic.value>(to + r * span.channels + i, gradient(numbers, grad, v), width);
        }
      });
    });
  });
}

}  // namespace normkit::NORMKIT_ISA
