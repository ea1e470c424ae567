// Channel norms of interleaved data: adjacent channels ("channels last").
#pragma once

#include "channel_norm.h"

namespace normkit::NORMKIT_ISA {

// Whether rows may be written by turns: past the cache only line by line.
template <Traffic kTraffic, class T>
constexpr bool kTogether = kTraffic == Traffic::cached || kWholeLines<T>;

// How far apart the R runs of rows begin whose next ones are handled at once, so that a channel's
// numbers are loaded once for all of them. Runs, as the hardware fetches each ahead: neighbours by
// turns would be one run to it, whose addresses go back and forth. An odd number, as rows of a
// power of two would meet in one set of the innermost cache.
template <int R>
inline int64_t gap_of(int64_t rows) {
  return rows < R ? 0 : (rows / R - 1) | 1;
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

// Channels handled together, whose numbers stay in a cache. What cuts a row cuts its pages, too,
// and prefetching ends with each: narrow vectors, which take longer, do better with longer runs.
constexpr int64_t kTile = NORMKIT_VECTOR_BYTES == 64 ? 1024 : 2048;

// Calls f(apart, numbers) with the channels' numbers: as they are, or copied apart where so many
// rows meet them that this pays, and where they are no more than a tile, for which there is room.
template <class T, class Numbers, class F>
NORMKIT_INLINE inline void with_numbers(const Span& span, const Numbers& channels, const F& f) {
#if defined(NORMKIT_APART)
  constexpr int64_t kManyRows = 32;
  if constexpr (kApart<T>) {
    if (span.rows >= kManyRows && span.channels <= kTile) {
      constexpr int kArrays = sizeof(Numbers) / sizeof(const float*);  // of which it is made
      static_assert(kArrays * sizeof(const float*) == sizeof(Numbers) && kArrays <= 6);
      constexpr int64_t kSkew = 80;  // or lines of all arrays would meet in one set
      alignas(64) float room[kArrays][kTile + kSkew];
      const float* arrays[kArrays];
      memcpy(arrays, &channels, sizeof channels);
      for (int a = 0; a < kArrays; ++a) {
        widen_all(arrays[a], room[a], span.channels, true);
        arrays[a] = room[a];
      }
      return f(IsApart<true>{}, read<Numbers>(arrays));
    }
  }
#endif
  f(IsApart<false>{}, channels);
}

// Two sums for every channel: in P over a pass of rows, few unless P is double, then in double.
// Their order is that of R runs of rows, also where kAtOnce, R or one, are handled at once.
// add(at_once, row, gap, c, n, first, second) adds rows to the sums of n channels from c on;
// keep(c, n, first, second) takes them.
template <class P, int R, int kAtOnce = R, class Add, class Keep>
NORMKIT_INLINE inline void sum_rows(const Span& span, Add&& add, Keep&& keep) {
  constexpr int64_t kStep = (sizeof(P) == sizeof(double) ? 256 : 16) / R;
  alignas(64) P first[kTile], second[kTile];
  const int64_t gap = gap_of<R>(span.rows);
  const auto pass = [&](auto at_once, int runs, int64_t row, int64_t last) NORMKIT_INLINE {
    for (int64_t c = 0; c < span.channels; c += kTile) {
      const int64_t n = span.channels - c < kTile ? span.channels - c : kTile;
      // Not memset, whose string instruction takes longer to start than a few channels do.
      sweep<P>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
        store(first + i, Vec<P>{}, width);
        store(second + i, Vec<P>{}, width);
      });
      for (int64_t r = row; r < last; ++r)
        for (int run = 0; run < runs; run += at_once.count)
          add(at_once, r + run * gap, gap, c, n, first, second);
      keep(c, n, first, second);
    }
  };
  for (int64_t row = 0; row < gap; row += kStep)
    pass(AtOnce<kAtOnce>{}, R, row, row + kStep < gap ? row + kStep : gap);
  if (R * gap < span.rows) pass(AtOnce<1>{}, 1, R * gap, span.rows);
}

template <class P, class T, class A>
inline void column_sums(Rows<const T> x, const Span& span, const A* shift, double* sum,
                        double* squares, double* peak) {
  sum_rows<P, 4>(
      span,
      [&](auto at_once, int64_t row, int64_t gap, int64_t c, int64_t n, P* s, P* q) NORMKIT_INLINE {
        const T* from = x.data + row * x.stride + c;
        const int64_t stride = gap * x.stride;
        sweep_in<P, T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
          const auto shifts = load_as<P>(shift + c + i, width);
          const auto s_sum = load(s + i, width), q_sum = load(q + i, width);
          auto d_sum = decltype(s_sum + s_sum){}, dd_sum = d_sum;  // of these rows: a shorter chain
          for (int r = 0; r < at_once.count; ++r) {
            const auto d = load_as<P>(from + r * stride + i, width) - shifts;
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
  exact ? column_sums<double>(x, span, shift, sum, squares, peak)
        : column_sums<A>(x, span, shift, sum, squares, peak);
}

// Only rows that all begin at a line can go past the cache.
template <class T>
inline Traffic for_rows(const Span& span, const T* to) {
  return by_lines(to, span.channels) ? span.traffic : Traffic::cached;
}

// The sums of grad_y and grad_y * x_hat, in the order of sum_rows; write(to, i, numbers, grad_y,
// width) has a place for a vector of the gradient itself, where one is wanted.
template <int R, int kAtOnce, bool kIsApart, class T, class Numbers, class Write,
          class A = accumulate_t<T>>
NORMKIT_INLINE inline void sum_gradients(Rows<const T> grad_y, Rows<const T> x, T* grad_x,
                                         const Span& span, const Numbers& channels, double* grad,
                                         double* product, const Write& write) {
  for (int64_t c = 0; c < span.channels; ++c) grad[c] = product[c] = 0;
  sum_rows<A, R, kAtOnce>(
      span,
      [&](auto at_once, int64_t row, int64_t gap, int64_t c, int64_t n, A* s, A* p) NORMKIT_INLINE {
        const T *g = grad_y.data + row * grad_y.stride + c, *from = x.data + row * x.stride + c;
        T* to = grad_x ? grad_x + row * span.channels + c : nullptr;
        const int64_t stride_g = gap * grad_y.stride, stride_x = gap * x.stride;
        const int64_t stride_out = gap * span.channels;
        const auto own = channels.from(c);
        sweep_of<T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
          const auto step = step_of<kIsApart>(width);
          const auto numbers = vectors(own, i, width);
          auto g_sum = load(s + i, width), product_sum = load(p + i, width);
          for (int r = 0; r < at_once.count; ++r) {
            const auto v = load(g + r * stride_g + i, step);
            g_sum = g_sum + v;
            const auto hat = x_hat(numbers, load(from + r * stride_x + i, step));
            product_sum = fused(v, hat, product_sum);
            write(to, r * stride_out + i, numbers, v, step);
          }
          store(s + i, g_sum, width);
          store(p + i, product_sum, width);
        });
      },
      [&](int64_t c, int64_t n, const A* s, const A* p) NORMKIT_INLINE {
        sweep_of<T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
          add_to(grad + c + i, in_order<kIsApart>(load(s + i, width)), width);
          add_to(product + c + i, in_order<kIsApart>(load(p + i, width)), width);
        });
      });
}

template <class T, class A = accumulate_t<T>>
void interleaved_gradient_sums(Rows<const T> grad_y, Rows<const T> x, Span span,
                               Hat<const A*> channels, double* grad, double* product) {
  with_numbers<T>(span, channels, [&](auto apart, const auto& own) {
    sum_gradients<4, 4, apart.value>(grad_y, x, (T*)nullptr, span, own, grad, product,
                                     [](auto&&...) {});
  });
}

// body(at_once, row, gap, c, n) for all rows, and n channels from c on, a tile at a time. A body
// keeps strides and channels in variables of its own: for all the compiler knows a store changes
// what lies behind a reference, and it is read again for every vector.
template <int R, class Body>
NORMKIT_INLINE inline void by_tiles(const Span& span, Body&& body) {
  const int64_t gap = gap_of<R>(span.rows);
  for (int64_t c = 0; c < span.channels; c += kTile) {
    const int64_t n = span.channels - c < kTile ? span.channels - c : kTile;
    for (int64_t row = 0; row < gap; ++row) body(AtOnce<R>{}, row, gap, c, n);
    for (int64_t row = R * gap; row < span.rows; ++row) body(AtOnce<1>{}, row, gap, c, n);
  }
}

template <class T, class A = accumulate_t<T>>
void interleaved_apply(Rows<const T> x, T* y, Span span, Apply<const A*> channels) {
  with_traffic(for_rows(span, y), [&](auto traffic) {
    with_numbers<T>(span, channels, [&](auto apart, const auto& all) {
      by_tiles<kTogether<traffic.value, T> ? 2 : 1>(
          span, [&](auto at_once, int64_t row, int64_t gap, int64_t c, int64_t n) NORMKIT_INLINE {
            const T* from = x.data + row * x.stride + c;
            T* to = y + row * span.channels + c;
            const int64_t stride_x = gap * x.stride, stride_y = gap * span.channels;
            const auto own = all.from(c);
            sweep_of<T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
              const auto step = step_of<apart.value>(width);
              const auto numbers = vectors(own, i, width);
              for (int r = 0; r < at_once.count; ++r) {
                const auto v = load(from + r * stride_x + i, step);
                store_to<traffic.value>(to + r * stride_y + i, applied<T>(numbers, v), step);
              }
            });
          });
    });
  });
}

template <class T, class A = accumulate_t<T>>
void interleaved_gradient(Rows<const T> grad_y, Rows<const T> x, T* grad_x, Span span,
                          Gradient<const A*> channels) {
  with_traffic(for_rows(span, grad_x), [&](auto traffic) {
    with_numbers<T>(span, channels, [&](auto apart, const auto& all) {
      by_tiles<kTogether<traffic.value, T> ? 2 : 1>(
          span, [&](auto at_once, int64_t row, int64_t gap, int64_t c, int64_t n) NORMKIT_INLINE {
            const T* g = grad_y.data + row * grad_y.stride + c;
            const T* from = x.data + row * x.stride + c;
            T* to = grad_x + row * span.channels + c;
            const int64_t stride_g = gap * grad_y.stride, stride_x = gap * x.stride;
            const int64_t stride_out = gap * span.channels;
            const auto own = all.from(c);
            sweep_of<T>(0, n, [&](int, int64_t i, auto width) NORMKIT_INLINE {
              const auto step = step_of<apart.value>(width);
              const auto numbers = vectors(own, i, width);
              for (int r = 0; r < at_once.count; ++r) {
                const auto v = load(from + r * stride_x + i, step);
                const auto grad = load(g + r * stride_g + i, step);
                store_to<traffic.value>(to + r * stride_out + i, gradient(numbers, grad, v), step);
              }
            });
          });
    });
  });
}

template <class T, class A = accumulate_t<T>>
void interleaved_fixed_gradient(Rows<const T> grad_y, Rows<const T> x, T* grad_x, Span span,
                                FixedGradient<const A*> channels, double* grad, double* product) {
  // Past the cache half lines of several rows wait for their other halves in one set of the
  // innermost cache, where rows are a multiple of its ways apart: 4 KB.
  constexpr int64_t kLong = 4000;
  with_room(grad_x, for_rows(span, grad_x), [&](auto write, auto traffic) {
    constexpr int kRuns = kWholeLines<T> ? 4 : 2;
    const auto sum = [&](auto at_once) {
      with_numbers<T>(span, channels, [&](auto apart, const auto& own) {
        sum_gradients<kRuns, at_once.count, apart.value>(grad_y, x, grad_x, span, own, grad,
                                                         product, write);
      });
    };
    if (kWholeLines<T> || traffic.value == Traffic::cached ||
        span.channels * int64_t(sizeof(T)) < kLong)
      sum(AtOnce<kRuns>{});
    else
      sum(AtOnce<1>{});
  });
}

}  // namespace normkit::NORMKIT_ISA
