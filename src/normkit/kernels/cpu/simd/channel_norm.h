// What is done to one element by a channel norm, BatchNorm, and the channels' numbers in vectors.
#pragma once

#include "loops.h"

namespace normkit::NORMKIT_ISA {

// So many rows or planes are handled at once.
template <int R>
struct AtOnce {
  static constexpr int count = R;
};

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

// Likewise, means, which a plane has as a Subtrahend. So has a vector of two planes, or their NaNs
// would differ in sign.
template <class A>
inline Subtrahend<Vec<A>> means(const A* numbers, Same) {
  return subtrahend(*numbers);
}
template <class A>
inline Subtrahend<Vec<A>> means(const A* numbers, Both both) {
  return {first_lanes<A>(both.first) ? broadcast(A(-numbers[0])) : broadcast(A(-numbers[1]))};
}
template <class A, class W>
inline auto means(const A* numbers, W width) {
  return lanes(numbers, width);
}

// What holds them.
template <class A, class W>
using Lanes = decltype(lanes((const A*)nullptr, W{}));
template <class A, class W>
using Means = decltype(means((const A*)nullptr, W{}));

template <class A, class W>
NORMKIT_INLINE inline Apply<Lanes<A, W>, Means<A, W>> vectors(const Apply<const A*>& a, int64_t c,
                                                              W w) {
  return {means(a.mean + c, w), lanes(a.scale + c, w), lanes(a.scale_rest + c, w),
          lanes(a.bias + c, w)};
}
template <class A, class W>
NORMKIT_INLINE inline Hat<Lanes<A, W>, Means<A, W>> vectors(const Hat<const A*>& h, int64_t c,
                                                            W w) {
  return {means(h.mean + c, w), lanes(h.rstd + c, w)};
}
template <class A, class W>
NORMKIT_INLINE inline Gradient<Lanes<A, W>, Means<A, W>> vectors(const Gradient<const A*>& g,
                                                                 int64_t c, W w) {
  return {means(g.mean + c, w), lanes(g.scale + c, w), lanes(g.pull + c, w), lanes(g.shift + c, w)};
}
template <class A, class W>
NORMKIT_INLINE inline FixedGradient<Lanes<A, W>, Means<A, W>> vectors(
    const FixedGradient<const A*>& g, int64_t c, W w) {
  return {vectors(g.hat, c, w), lanes(g.scale + c, w), lanes(g.scale_rest + c, w)};
}

template <class T, class N, class M, class V>
NORMKIT_INLINE inline V applied(const Apply<N, M>& a, const V& x) {
  const V d = x - a.mean;
  // A half's rounding hides the rest; a double has none.
  if (sizeof(T) != sizeof(float)) return fused(d, a.scale, a.bias);
  return fused(d, a.scale, fused(d, a.scale_rest, a.bias));
}
template <class N, class M, class V>
NORMKIT_INLINE inline V x_hat(const Hat<N, M>& h, const V& x) {
  return (x - h.mean) * h.rstd;
}
template <class N, class M, class V>
NORMKIT_INLINE inline V x_hat(const FixedGradient<N, M>& g, const V& x) {
  return x_hat(g.hat, x);
}
template <class N, class M, class V>
NORMKIT_INLINE inline V gradient(const Gradient<N, M>& a, const V& g, const V& x) {
  return fused(g, a.scale, fused(x - a.mean, a.pull, a.shift));
}
template <class T, class N, class M, class V>
NORMKIT_INLINE inline V fixed_gradient(const FixedGradient<N, M>& a, const V& g) {
  return sizeof(T) == sizeof(float) ? fused(g, a.scale, g * a.scale_rest) : g * a.scale;
}

// Calls sweep(write, traffic) with what writes a vector of a gradient, or nothing where there is no
// room.
template <class T, class Sweep>
NORMKIT_INLINE inline void with_room(const T* room, Traffic traffic, const Sweep& sweep) {
  if (!room) return sweep([](auto&&...) {}, Constant<Traffic::cached>{});
  with_traffic(traffic, [&](auto way) {
    const auto write = [](T* to, int64_t i, const auto& numbers, const auto& grad_y,
                          auto width) NORMKIT_INLINE {
      store_to<decltype(way)::value>(to + i, fixed_gradient<T>(numbers, grad_y), width);
    };
    sweep(write, way);
  });
}

}  // namespace normkit::NORMKIT_ISA
