// Channel norms: BatchNorm's sums, application and gradient, for planes of adjacent positions
// (planar) and for adjacent channels (interleaved).
#pragma once

#include "vector.h"

namespace normkit::NORMKIT_ISA {

// The numbers of channel c in every lane, or of the channels from c on, one in each.
struct Same {};
template <class A>
inline Vec<A> lanes(const A* numbers, Same) {
  return broadcast(*numbers);
}
template <class A, class W>
inline Vec<A> lanes(const A* numbers, W width) {
  return load(numbers, width);
}

template <class A, class W>
NORMKIT_INLINE inline Apply<Vec<A>> vectors(const Apply<const A*>& a, int64_t c, W w) {
  return {lanes(a.mean + c, w), lanes(a.scale + c, w), lanes(a.scale_rest + c, w),
          lanes(a.bias + c, w)};
}
template <class A, class W>
NORMKIT_INLINE inline Hat<Vec<A>> vectors(const Hat<const A*>& h, int64_t c, W w) {
  return {lanes(h.mean + c, w), lanes(h.rstd + c, w), lanes(h.shift + c, w)};
}
template <class A, class W>
NORMKIT_INLINE inline Gradient<Vec<A>> vectors(const Gradient<const A*>& g, int64_t c, W w) {
  return {vectors(g.hat, c, w), lanes(g.scale + c, w), lanes(g.pull + c, w), lanes(g.shift + c, w)};
}

template <class T, class V>
NORMKIT_INLINE inline V applied(const Apply<V>& a, V x) {
  const V d = x - a.mean;
  if (sizeof(T) < sizeof(x[0])) return fused(d, a.scale, a.bias);  // its rounding hides the rest
  return fused(d, a.scale, fused(d, a.scale_rest, a.bias));
}
template <class V>
NORMKIT_INLINE inline V x_hat(const Hat<V>& h, V x) {
  return fused(x - h.mean, h.rstd, h.shift);
}
template <class V>
NORMKIT_INLINE inline V gradient(const Gradient<V>& a, V g, V x) {
  return fused(g, a.scale, fused(x_hat(a.hat, x), a.pull, a.shift));
}

// ----------------------------------------------------------------------- planar
// body(n, c) for every plane, in the order they lie in memory.
template <class Body>
NORMKIT_INLINE inline void by_planes(const Box& box, Body&& body) {
  for (int64_t n = 0; n < box.batch; ++n)
    for (int64_t c = 0; c < box.channels; ++c) body(n, c);
}

// Two sums for every channel, plane by plane as they lie in memory; term(n, c) makes the terms of a
// plane, keep(c, sums) takes the result.
template <class P, class Term, class Keep>
NORMKIT_INLINE inline void sum_planes(const Box& box, Term&& term, Keep&& keep) {
  constexpr int64_t kTogether = 32;
  for (int64_t first = 0; first < box.channels; first += kTogether) {
    const int64_t rest = box.channels - first, count = rest < kTogether ? rest : kTogether;
    Wide<2> wide[kTogether];
    by_planes({box.batch, count, box.length, box.traffic},
              [&](int64_t n, int64_t c)
                  NORMKIT_INLINE { add_sums<2, P>(box.length, wide[c], term(n, first + c)); });
    for (int64_t c = 0; c < count; ++c) keep(first + c, wide[c]);
  }
}

template <class P, class T, class A>
inline void sums_in(Planes<const T> x, const Box& box, const A* shift, Sums* sums) {
  sum_planes<P>(
      box,
      [&](int64_t n, int64_t c) NORMKIT_INLINE {
        return [from = x.at(n, c), shifts = broadcast(P(shift[c]))](int, int64_t i, auto width,
                                                                    Vec<P>* out) NORMKIT_INLINE {
          const Vec<P> d = load_as<P>(from + i, width) - shifts;
          out[0] = d * d;
          out[1] = d;
        };
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
  sum_planes<A>(
      box,
      [&](int64_t n, int64_t c) NORMKIT_INLINE {
        return [g = grad_y.at(n, c), from = x.at(n, c), numbers = vectors(channels, c, Same{})](
                   int, int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
          out[0] = load(g + i, width);
          out[1] = out[0] * x_hat(numbers, load(from + i, width));
        };
      },
      [&](int64_t c, const Wide<2>& w) NORMKIT_INLINE { sums[c] = {w.total(0), w.total(1)}; });
}

template <class T, class A = accumulate_t<T>>
void planar_apply(Planes<const T> x, Planes<T> y, Box box, Apply<const A*> channels) {
  with_traffic(box.traffic, [&](auto traffic) {
    by_planes(box, [&](int64_t n, int64_t c) NORMKIT_INLINE {
      const auto numbers = vectors(channels, c, Same{});
      const T* from = x.at(n, c);
      T* to = y.at(n, c);
      sweep_lines<traffic.value, A>(to, box.length, [&](int, int64_t i, auto width) NORMKIT_INLINE {
        store_to<traffic.value>(to + i, applied<T>(numbers, load(from + i, width)), width);
      });
    });
  });
}

template <class T, class A = accumulate_t<T>>
void planar_gradient(Planes<const T> grad_y, Planes<const T> x, Planes<T> grad_x, Box box,
                     Gradient<const A*> channels) {
  with_traffic(box.traffic, [&](auto traffic) {
    by_planes(box, [&](int64_t n, int64_t c) NORMKIT_INLINE {
      const auto numbers = vectors(channels, c, Same{});
      const T *g = grad_y.at(n, c), *from = x.at(n, c);
      T* to = grad_x.at(n, c);
      sweep_lines<traffic.value, A>(to, box.length, [&](int, int64_t i, auto width) NORMKIT_INLINE {
        store_to<traffic.value>(
            to + i, gradient(numbers, load(g + i, width), load(from + i, width)), width);
      });
    });
  });
}

// ------------------------------------------------------------------ interleaved
// Sums: a block of columns keeps its sums in registers while it goes down this many rows.
constexpr int64_t kRowsPerPass = 32;
constexpr int kColumns = NORMKIT_VECTOR_BYTES == 64 ? 4 : 2;  // vectors in a block
constexpr int64_t kRowsAhead = 16;  // how far ahead of a single pass the next rows are fetched

// body(columns, c, first, last, width): `columns` vectors from channel c on, rows [first, last).
template <int N>
struct Columns {
  static constexpr int count = N;
};

template <class P, class Body>
NORMKIT_INLINE inline void by_columns(const Span& span, Body&& body) {
  constexpr int L = kLanes<P>;
  for (int64_t first = 0; first < span.rows; first += kRowsPerPass) {
    const int64_t last = first + kRowsPerPass < span.rows ? first + kRowsPerPass : span.rows;
    int64_t c = 0;
    for (; c + kColumns * L <= span.channels; c += kColumns * L)
      body(Columns<kColumns>{}, c, first, last, Full{});
    for (; c + L <= span.channels; c += L) body(Columns<1>{}, c, first, last, Full{});
    if (c < span.channels) body(Columns<1>{}, c, first, last, Part{int(span.channels - c)});
  }
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
template <class V, class W>
NORMKIT_INLINE inline void add_to(double* total, V v, W width) {
  update(total, v, width, [](Vec<double> a, Vec<double> b) { return a + b; });
}
template <class V, class W>
NORMKIT_INLINE inline void raise_to(double* peak, V v, W width) {
  update(peak, v, width, [](Vec<double> a, Vec<double> b) { return larger(a, b); });
}

template <Traffic kTraffic, class P, class T, class A>
inline void column_sums(Rows<const T> x, const Span& span, const A* shift, double* sum,
                        double* squares, double* peak) {
  by_columns<P>(
      span, [&](auto columns, int64_t c, int64_t first, int64_t last, auto width) NORMKIT_INLINE {
        constexpr int V = decltype(columns)::count, L = kLanes<P>;
        Vec<P> shifts[V], s[V] = {}, q[V] = {};
        for (int v = 0; v < V; ++v) shifts[v] = load_as<P>(shift + c + v * L, width);
        for (int64_t r = first; r < last; ++r) {
          const T* row = x.data + r * x.stride + c;
          for (int v = 0; v < V; ++v) {
            fetch<kTraffic>(v, row + kRowsPerPass * x.stride + v * L);
            const Vec<P> d = load_as<P>(row + v * L, width) - shifts[v];
            s[v] += d;
            q[v] = fused(d, d, q[v]);
          }
        }
        for (int v = 0; v < V; ++v) {
          add_to(sum + c + v * L, s[v], width);
          add_to(squares + c + v * L, q[v], width);
          if (sizeof(P) == sizeof(float)) raise_to(peak + c + v * L, q[v], width);
        }
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

template <Traffic kTraffic, class T, class A>
inline void column_gradient_sums(Rows<const T> grad_y, Rows<const T> x, const Span& span,
                                 const Hat<const A*>& channels, double* grad, double* grad_x_hat) {
  by_columns<A>(
      span, [&](auto columns, int64_t c, int64_t first, int64_t last, auto width) NORMKIT_INLINE {
        constexpr int V = decltype(columns)::count, L = kLanes<A>;
        Hat<Vec<A>> numbers[V];
        Vec<A> g_sum[V] = {}, gx_sum[V] = {};
        for (int v = 0; v < V; ++v) numbers[v] = vectors(channels, c + v * L, width);
        for (int64_t r = first; r < last; ++r) {
          const T *g_row = grad_y.data + r * grad_y.stride + c, *row = x.data + r * x.stride + c;
          for (int v = 0; v < V; ++v) {
            fetch<kTraffic>(v, g_row + kRowsPerPass * grad_y.stride + v * L);
            fetch<kTraffic>(v, row + kRowsPerPass * x.stride + v * L);
            const Vec<A> g = load(g_row + v * L, width);
            g_sum[v] += g;
            gx_sum[v] = fused(g, x_hat(numbers[v], load(row + v * L, width)), gx_sum[v]);
          }
        }
        for (int v = 0; v < V; ++v) {
          add_to(grad + c + v * L, g_sum[v], width);
          add_to(grad_x_hat + c + v * L, gx_sum[v], width);
        }
      });
}

template <class T, class A = accumulate_t<T>>
void interleaved_gradient_sums(Rows<const T> grad_y, Rows<const T> x, Span span,
                               Hat<const A*> channels, double* grad, double* grad_x_hat) {
  for (int64_t c = 0; c < span.channels; ++c) grad[c] = grad_x_hat[c] = 0;
  with_traffic(span.traffic, [&](auto traffic) {
    column_gradient_sums<traffic.value>(grad_y, x, span, channels, grad, grad_x_hat);
  });
}

// body(R, row, c, n): R rows at a time, so that a channel's numbers are loaded once for both, and
// so many channels that their numbers stay in the innermost cache.
template <int R>
struct RowsAtOnce {
  static constexpr int count = R;
};

template <class Body>
NORMKIT_INLINE inline void by_tiles(const Span& span, Body&& body) {
  constexpr int64_t kTile = 256;
  for (int64_t c = 0; c < span.channels; c += kTile) {
    const int64_t n = span.channels - c < kTile ? span.channels - c : kTile;
    int64_t row = 0;
    for (; row + 2 <= span.rows; row += 2) body(RowsAtOnce<2>{}, row, c, n);
    if (row < span.rows) body(RowsAtOnce<1>{}, row, c, n);
  }
}

// Only rows that all begin at a line can go past the cache.
template <class T>
inline Traffic for_rows(const Span& span, const T* to) {
  const bool by_lines = (uintptr_t)to % 64 == 0 && span.channels * sizeof(T) % 64 == 0;
  return by_lines ? span.traffic : Traffic::cached;
}

template <class T, class A = accumulate_t<T>>
void interleaved_apply(Rows<const T> x, T* y, Span span, Apply<const A*> channels) {
  with_traffic(for_rows(span, y), [&](auto traffic) {
    by_tiles(span, [&](auto rows, int64_t row, int64_t c, int64_t n) NORMKIT_INLINE {
      const T* from = x.data + row * x.stride + c;
      T* to = y + row * span.channels + c;
      sweep<A>(0, n, [&](int k, int64_t i, auto width) NORMKIT_INLINE {
        const auto numbers = vectors(channels, c + i, width);
        for (int r = 0; r < rows.count; ++r) {
          fetch<traffic.value>(k, from + (r + kRowsAhead) * x.stride + i);
          const Vec<A> v = load(from + r * x.stride + i, width);
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
    by_tiles(span, [&](auto rows, int64_t row, int64_t c, int64_t n) NORMKIT_INLINE {
      const T* g = grad_y.data + row * grad_y.stride + c;
      const T* from = x.data + row * x.stride + c;
      T* to = grad_x + row * span.channels + c;
      sweep<A>(0, n, [&](int k, int64_t i, auto width) NORMKIT_INLINE {
        const auto numbers = vectors(channels, c + i, width);
        for (int r = 0; r < rows.count; ++r) {
          fetch<traffic.value>(k, g + (r + kRowsAhead) * grad_y.stride + i);
          fetch<traffic.value>(k, from + (r + kRowsAhead) * x.stride + i);
          const Vec<A> v = load(from + r * x.stride + i, width);
          const Vec<A> grad = load(g + r * grad_y.stride + i, width);
          store_to<traffic.value>(to + r * span.channels + i, gradient(numbers, grad, v), width);
        }
      });
    });
  });
}

}  // namespace normkit::NORMKIT_ISA
