// Channel norms of planar data: planes of adjacent positions.
#pragma once

#include "channel_norm.h"

namespace normkit::NORMKIT_ISA {

// Two sums for every channel, of R planes of it at once, as they lie in memory: as many runs of
// addresses. The hardware fetches each ahead on its own, and starts anew at every page: one run
// alone waits for that. add(at_once, n, c, wide) adds the planes from n on, keep(c, sums) takes the
// result.
template <int R, class Add, class Keep>
NORMKIT_INLINE inline void sum_planes(const Box& box, Add&& add, Keep&& keep) {
  constexpr int64_t kTogether = 32;
  for (int64_t first = 0; first < box.channels; first += kTogether) {
    const int64_t rest = box.channels - first, count = rest < kTogether ? rest : kTogether;
    Wide<2> wide[kTogether];
    for (int64_t c = 0; c < count; ++c) wide[c].clear();
    int64_t n = 0;
    for (; n + R <= box.batch; n += R)
      for (int64_t c = 0; c < count; ++c) add(AtOnce<R>{}, n, first + c, wide[c]);
    for (; n < box.batch; ++n)
      for (int64_t c = 0; c < count; ++c) add(AtOnce<1>{}, n, first + c, wide[c]);
    for (int64_t c = 0; c < count; ++c) keep(first + c, wide[c]);
  }
}

template <class P, class T, class A>
inline void sums_in(Planes<const T> x, const Box& box, const A* shift, Sums* sums) {
  sum_planes<4>(
      box,
      [&](auto at_once, int64_t n, int64_t c, Wide<2>& wide) NORMKIT_INLINE {
        const T* from = x.at(n, c);
        const auto shifts = subtrahend(P(shift[c]));
        const auto term = [&](int plane, int64_t i, auto width) NORMKIT_INLINE {
          const auto d = load_unordered<P>(from + plane * x.stride_n + i, width) - shifts;
          return terms(d * d, d);
        };
        add_sums_of<at_once.count, P, T>(box.length, wide, term);
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
  sum_planes<4>(
      box,
      [&](auto at_once, int64_t n, int64_t c, Wide<2>& wide) NORMKIT_INLINE {
        const auto numbers = vectors(channels, c, Same{});
        const T *g = grad_y.at(n, c), *from = x.at(n, c);
        const auto term = [&](int plane, int64_t i, auto width) NORMKIT_INLINE {
          const auto v = load_unordered<A>(g + plane * grad_y.stride_n + i, width);
          const auto at = load_unordered<A>(from + plane * x.stride_n + i, width);
          return terms(v, v * x_hat(numbers, at));
        };
        add_gradient_sums_of<at_once.count, T>(box.length, wide, term);
      },
      [&](int64_t c, const Wide<2>& w) NORMKIT_INLINE { sums[c] = {w.total(0), w.total(1)}; });
}

// Planes of a sample that lie one after the other, as many as are handled as one run: whole lines
// are written then, and only the first and the last are written in parts. Planes shorter than a
// line are handled one by one: the first line then begins in the first plane, and no vector belongs
// to more than two.
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

// f(n, c, planes) for every run of so many planes, in the order they lie in memory.
template <class F>
NORMKIT_INLINE inline void by_runs(const Box& box, int64_t planes, F&& f) {
  for (int64_t n = 0; n < box.batch; ++n)
    for (int64_t c = 0; c < box.channels; c += planes) f(n, c, planes);
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
            const auto step = step_of<kApart<T>>(width);
            const auto v = applied<T>(numbers, load(from + i, step));
            store_to<traffic.value>(to + i, v, step);
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
            const auto step = step_of<kApart<T>>(width);
            const auto v = gradient(numbers, load(g + i, step), load(from + i, step));
            store_to<traffic.value>(to + i, v, step);
          });
    });
  });
}

template <class T, class A = accumulate_t<T>>
void planar_fixed_gradient(Planes<const T> grad_y, Planes<const T> x, Planes<T> grad_x, Box box,
                           FixedGradient<const A*> channels, GradientSums* sums) {
  const bool lines =
      by_lines(grad_x.data, grad_x.stride_c) && by_lines(grad_x.data, grad_x.stride_n);
  with_room(grad_x.data, lines ? box.traffic : Traffic::cached, [&](auto write, auto) {
    sum_planes<1>(
        box,
        [&](auto, int64_t n, int64_t c, Wide<2>& wide) NORMKIT_INLINE {
          const auto numbers = vectors(channels, c, Same{});
          const T *g = grad_y.at(n, c), *from = x.at(n, c);
          T* to = grad_x.data ? grad_x.at(n, c) : nullptr;
          add_gradient_sums<T>(box.length, wide, [&](int64_t i, auto width) NORMKIT_INLINE {
            const auto step = step_of<kApart<T>>(width);
            const auto v = load(g + i, step);
            write(to, i, numbers, v, step);
            return terms(v, v * x_hat(numbers, load(from + i, step)));
          });
        },
        [&](int64_t c, const Wide<2>& w) NORMKIT_INLINE { sums[c] = {w.total(0), w.total(1)}; });
  });
}

}  // namespace normkit::NORMKIT_ISA
