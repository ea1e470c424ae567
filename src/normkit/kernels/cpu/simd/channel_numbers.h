// What BatchNorm works out once for every channel: its moments, and what it is normalised with. A
// root and a division take as long as some thirty elements, so channels go by vectors, too.
#pragma once

#include "loops.h"

namespace normkit::NORMKIT_ISA {

inline Vec<double> root(Vec<double> v) {
#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
  return (Vec<double>)_mm512_maskz_sqrt_pd(0xff, (__m512d)v);
#elif defined(__AVX2__) && NORMKIT_VECTOR_BYTES == 32
  return (Vec<double>)_mm256_sqrt_pd((__m256d)v);
#elif defined(__SSE2__) && NORMKIT_VECTOR_BYTES == 16
  return (Vec<double>)_mm_sqrt_pd((__m128d)v);
#else
  for (int i = 0; i < kLanes<double>; ++i) v[i] = __builtin_sqrt(v[i]);
  return v;
#endif
}
inline Vec<double> magnitude(Vec<double> v) { return larger(v, -v); }

// A vector of doubles rounded to A.
template <class A>
using Rounded = typename vector_of<A, kLanes<double>>::type;
template <class A>
inline Rounded<A> rounded(Vec<double> v) {
  return canonical(__builtin_convertvector(v, Rounded<A>));
}
template <class V>
inline Vec<double> in_double(V v) {
  return __builtin_convertvector(v, Vec<double>);
}
template <class A, class V>
inline void store_rounded(A* to, V v, Full) {
  write(to, v);
}
template <class A, class V>
inline void store_rounded(A* to, V v, Part part) {
  write_part(to, v, part.n);
}

// Lanes of comparisons, counted.
template <class Lanes, class W>
NORMKIT_INLINE inline Vec<double> count_of(Lanes lanes, W width) {
  return keep<double>(lanes ? broadcast(1.0) : Vec<double>{}, width);
}

template <class T>
bool channel_moments(ChannelSums sums, double count, double eps, bool exact, ChannelMoments moments,
                     int64_t begin, int64_t end) {
  constexpr bool kDouble = sizeof(T) == sizeof(double), kFloat = sizeof(T) == sizeof(float);
  // What float can hold of squares, and of small ones beside eps.
  const double most = kDouble ? __DBL_MAX__ : 1e37, least = kDouble || eps > 1e-25 ? -1 : 1e-25;
  // In double, sums of squares 2^20 times what is left of them keep 2^-32.
  const double slack = exact && !kDouble ? 0x1p20 : 1;
  Vec<double> unsound{};
  sweep<double>(begin, end, [&](int, int64_t c, auto width) NORMKIT_INLINE {
    const Vec<double> squares = load(sums.squares + c, width);
    const Vec<double> mean = load(sums.sum + c, width) / broadcast(count);
    const Vec<double> variance =
        larger(Vec<double>{}, squares / broadcast(count) - mean * mean);  // or not a number
    store(moments.mean + c, mean, width);
    store(moments.variance + c, variance, width);
    auto sound = (variance <= most) & (variance > least) & (mean * mean <= slack * variance);
    if (kFloat) sound &= 4 * load(sums.peak + c, width) <= squares;
    unsound += count_of(~sound, width);
  });
  return add_lanes(unsound) == 0;
}

// What rstd is multiplied by: one where there is no weight.
template <class A, class W>
NORMKIT_INLINE inline Vec<double> weights(const A* weight, int64_t c, W width) {
  return weight ? load_as<double>(weight + c, width) : broadcast(1.0);
}

// Whether A holds what becomes of a channel.
template <class A>
inline auto in_range(Vec<double> mean, Vec<double> rstd, Vec<double> weight) {
  constexpr bool kFloat = sizeof(A) == sizeof(float);
  constexpr double kFar = kFloat ? 1e30 : 1e290, kSteep = kFloat ? 1e30 : 1e140,
                   kFlat = kFloat ? 1e-30 : 1e-150;
  const Vec<double> size = magnitude(rstd * weight);
  return (magnitude(mean) < kFar) & (rstd > kFlat) & (rstd < kSteep) &
         (((size > kFlat) & (size < kSteep)) | (weight == 0.0));
}

// y = (x - mean) * scale + bias, in A, with what rounding the mean and the scale loses beside them.
template <class A>
bool channel_numbers(const ChannelSources<A>& from, const ChannelNumbers<A>& to, int64_t begin,
                     int64_t end) {
  const bool keep_statistics = to.statistics.rstd != nullptr;
  Vec<double> beyond{};
  sweep<double>(begin, end, [&](int, int64_t c, auto width) NORMKIT_INLINE {
    const Vec<double> shift = load_as<double>(from.shift + c, width);
    const Vec<double> offset = load(from.moments.mean + c, width);
    const Vec<double> variance = load(from.moments.variance + c, width);
    const Vec<double> rstd = 1.0 / root(variance + from.eps);
    const Vec<double> weight = weights(from.weight, c, width), scale = rstd * weight;
    const Vec<double> bias = from.bias ? load_as<double>(from.bias + c, width) : Vec<double>{};

    // The exact sum of shift and offset, by Knuth's two-sum.
    const Vec<double> sum = shift + offset, tail = sum - shift;
    const Vec<double> lost = (shift - (sum - tail)) + (offset - tail);
    const auto mean = rounded<A>(sum);
    const Vec<double> residual = (sum - in_double(mean)) + lost;
    // A little less than the scale, so that both parts have one sign and infinity times them, too.
    const auto part = rounded<A>(sizeof(A) == sizeof(float) ? scale * (1 - 0x1p-24) : scale);

    store_rounded(to.apply.mean + c, mean, width);
    store_rounded(to.apply.scale + c, part, width);
    store_rounded(to.apply.scale_rest + c, rounded<A>(scale - in_double(part)), width);
    store_rounded(to.apply.bias + c, rounded<A>(bias - residual * scale), width);
    if (keep_statistics) {
      // The backward pass must know of a spread that A has no room for beside eps.
      const auto slight = (variance > 0.0) & (variance < (sizeof(A) == sizeof(float) ? 1e-50 : 0));
      store_rounded(to.statistics.rstd + c, rounded<A>(slight ? -rstd : rstd), width);
      store_rounded(to.statistics.mean + c, mean, width);
      store_rounded(to.statistics.residual + c, rounded<A>(residual), width);
      store_rounded(to.statistics.var + c, rounded<A>(variance), width);
    }
    beyond += count_of(~in_range<A>(sum, rstd, weight), width);
  });
  return add_lanes(beyond) == 0;
}

// ---------------------------------------------------------------------- gradient
template <class A>
void gradient_numbers(const GradientSources<A>& from, const GradientNumbers<A>& to, int64_t begin,
                      int64_t end) {
  const bool in_parts = !from.training && sizeof(A) == sizeof(float);
  sweep<double>(begin, end, [&](int, int64_t c, auto width) NORMKIT_INLINE {
    const Vec<double> rstd = load_as<double>(from.statistics.rstd + c, width);
    const Vec<double> scale = rstd * weights(from.weight, c, width);
    // Of one sign, as in channel_numbers.
    const auto part = rounded<A>(in_parts ? scale * (1 - 0x1p-24) : scale);
    store_rounded(to.scale + c, part, width);
    store_rounded(to.pull + c, rounded<A>(scale - in_double(part)), width);
    store_rounded(to.shift + c, rounded<A>(Vec<double>{}), width);
  });
}

template <class A>
bool gradient_pull(const GradientSources<A>& from, const GradientNumbers<A>& to, int64_t begin,
                   int64_t end) {
  constexpr bool kFloat = sizeof(A) == sizeof(float);
  constexpr double kMost = kFloat ? 1e30 : 1e250, kLeast = kFloat ? 1e-25 : 1e-200;
  constexpr double kSteep = kFloat ? 0x1p60 : 0x1p400, kNormal = kFloat ? 1e-37 : 1e-300;
  const auto moderate = [](Vec<double> v) { return (v > 1 / kSteep) & (v < kSteep); };
  const auto large = [](Vec<double> v) { return (v == 0.0) | (magnitude(v) > kLeast); };
  Vec<double> beyond{};
  sweep<double>(begin, end, [&](int, int64_t c, auto width) NORMKIT_INLINE {
    const Vec<double> rstd = load_as<double>(from.statistics.rstd + c, width);
    const Vec<double> weight = weights(from.weight, c, width), scale = rstd * weight;
    const Vec<double> steepness = magnitude(scale);
    const Vec<double> mean = load_as<double>(from.statistics.mean + c, width);
    auto held =
        moderate(rstd) & (magnitude(mean) < kMost) & ((weight == 0.0) | moderate(steepness));
    if (from.summed) {
      const Vec<double> sum = load(from.grad + c, width);
      const Vec<double> residual = load_as<double>(from.statistics.residual + c, width);
      const Vec<double> product = load(from.product + c, width) - residual * rstd * sum;
      store(to.grad_x_hat + c, product, width);
      const Vec<double> size = magnitude(sum) + magnitude(product);
      held &= (size < kMost) & (size * steepness < kMost) & large(sum) & large(product);
      if (from.training) {
        // A channel that varies, though A can't say so.
        held &= (load_as<double>(from.statistics.var + c, width) != 0.0) | (product == 0.0);
        const Vec<double> shared = -scale * broadcast(from.inverse_count);
        const Vec<double> pull = shared * product * rstd, pulled = magnitude(pull);
        held &= (weight == 0.0) | (product == 0.0) | ((pulled > kNormal) & (pulled < 1 / kNormal));
        store_rounded(to.pull + c, rounded<A>(pull), width);
        store_rounded(to.shift + c, rounded<A>(shared * sum - residual * pull), width);
      }
    }
    beyond += count_of(~held, width);
  });
  return add_lanes(beyond) == 0;
}

}  // namespace normkit::NORMKIT_ISA
