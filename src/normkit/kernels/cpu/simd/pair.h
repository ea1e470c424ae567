// Two vectors of bfloat16 at once, as two vectors of floats: one load, one store and one check for
// both, and half as many steps in a loop.
#pragma once

#include "memory.h"

namespace normkit::NORMKIT_ISA {

// Whether elements of T are handled in pairs of vectors.
template <class T>
constexpr bool kPairs = false;

// How much an access touches: twice a vector.
struct Twice {
  static constexpr bool part = false;
};
// Likewise, the even numbers in one vector and the odd ones in the other. A bfloat16 is the upper
// half of a float, so that one shift and one mask decode all of them, and one blend puts them
// together again.
struct Apart : Twice {};

// Whether that is the better way for elements of T wherever their order is free, or that of the
// numbers they meet can be the same.
template <class T>
constexpr bool kApart = false;

// How elements are loaded and stored in a step of this width: those of a pair may be apart.
template <bool kIsApart, class W>
inline W step_of(W width) {
  return width;
}
template <bool kIsApart>
inline auto step_of(Twice width) {
  if constexpr (kIsApart)
    return Apart{};
  else
    return width;
}

#if defined(NORMKIT_PAIRS)
template <>
inline constexpr bool kPairs<bfloat16> = true;
#if defined(NORMKIT_APART)
template <>
inline constexpr bool kApart<bfloat16> = true;
#endif

struct Pair {
  Vec<float> low, high;
};

// What a pair meets in a formula is another pair or one vector for both.
inline Vec<float> lower(const Pair& p) { return p.low; }
inline Vec<float> upper(const Pair& p) { return p.high; }
inline Vec<float> lower(Vec<float> v) { return v; }
inline Vec<float> upper(Vec<float> v) { return v; }

template <class V>
NORMKIT_INLINE inline Pair operator+(const Pair& a, const V& b) {
  return {a.low + lower(b), a.high + upper(b)};
}
template <class V>
NORMKIT_INLINE inline Pair operator-(const Pair& a, const V& b) {
  return {a.low - lower(b), a.high - upper(b)};
}
NORMKIT_INLINE inline Pair operator-(const Pair& a, const Subtrahend<Vec<float>>& b) {
  return a + b.negative;
}
template <class V>
NORMKIT_INLINE inline Pair operator*(const Pair& a, const V& b) {
  return {a.low * lower(b), a.high * upper(b)};
}
template <class V, class W>
NORMKIT_INLINE inline Pair fused(const Pair& a, const V& b, const W& c) {
  return {fused(lower(a), lower(b), lower(c)), fused(upper(a), upper(b), upper(c))};
}
NORMKIT_INLINE inline Pair fused(const Pair& a, const Pair& b, const Pair& c) {
  return {fused(a.low, b.low, c.low), fused(a.high, b.high, c.high)};
}

template <class T>
inline Pair load(const T* p, Twice) {
  return {load(p), load(p + kLanes<float>)};
}
#if defined(NORMKIT_APART)
// One shuffle for each, where widening and shifting takes two steps of the units that shuffle,
// which are few. Its pattern takes a register, so the rest of a loop, which goes on by single
// vectors, widens: sums have no register to spare.
inline Pair load(const bfloat16* p, Twice) {
  const __m256i upper = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, -1,
                                         -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
  const auto spread = [&](const bfloat16* from) NORMKIT_INLINE {
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)from));
    return (Vec<float>)_mm256_shuffle_epi8(twice, upper);
  };
  return {spread(p), spread(p + kLanes<float>)};
}
#endif
inline void store(float* p, const Pair& v, Twice) {
  store(p, v.low);
  store(p + kLanes<float>, v.high);
}
template <class P, class T>
inline Pair load_as(const T* p, Twice width) {
  return load(p, width);
}
inline Pair broadcast_like(float a, Twice) { return {broadcast(a), broadcast(a)}; }

inline Pair load(const bfloat16* p, Apart) {
  const auto both = read<PerFloat<uint32_t>>(p);
  return {(Vec<float>)(both << 16), (Vec<float>)(both & 0xffff0000u)};
}
template <class P>
inline Pair load_unordered(const bfloat16* p, Twice) {
  return load(p, Apart{});
}

// The bits of a pair by 16: upper halves in one vector, lower halves in the other.
struct Halves {
  PerFloat<uint32_t> upper, lower;
};
// The upper halves, rounded to nearest, ties to even: one more where the lower half is past the
// middle, or on it and the upper one odd. As rounded_bits, but for all numbers of a pair at once.
inline PerFloat<uint32_t> rounded(const Halves& v) {
  using Sixteens = typename vector_of<uint16_t, 2 * kLanes<float>>::type;
  const auto upper = (Sixteens)v.upper, even = ~upper & 1;
#if NORMKIT_VECTOR_BYTES == 64
  // The zero-masked form, as in conversions.h.
  const auto past = (Sixteens)_mm512_maskz_subs_epu16(~0u, (__m512i)v.lower, (__m512i)even) >> 15;
#else
  const auto past = (Sixteens)_mm256_subs_epu16((__m256i)v.lower, (__m256i)even) >> 15;
#endif
  return (PerFloat<uint32_t>)(upper + past);
}

// Their upper or lower halves, packed.
template <bool kUpper>
inline PerFloat<uint32_t> packed(const Pair& v) {
#if NORMKIT_VECTOR_BYTES == 64
  alignas(64) static constexpr uint16_t kLower[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20,
                                                      22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42,
                                                      44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
  const __m512i lower = _mm512_load_si512(kLower);
  const __m512i which = kUpper ? _mm512_add_epi16(lower, _mm512_set1_epi16(1)) : lower;
  return (PerFloat<uint32_t>)_mm512_permutex2var_epi16((__m512i)v.low, which, (__m512i)v.high);
#else
  const auto low = (PerFloat<uint32_t>)v.low, high = (PerFloat<uint32_t>)v.high;
  const __m256i packed =
      kUpper ? _mm256_packus_epi32((__m256i)(low >> 16), (__m256i)(high >> 16))
             : _mm256_packus_epi32((__m256i)(low & 0xffffu), (__m256i)(high & 0xffffu));
  return (PerFloat<uint32_t>)_mm256_permute4x64_epi64(packed, 0b11011000);
#endif
}
inline PerFloat<uint32_t> encode_in_integers(const Pair& v) {
  return rounded(Halves{packed<true>(v), packed<false>(v)});
}

inline PerFloat<uint32_t> encode(const Pair& v) {
#if defined(__AVX512BF16__) && NORMKIT_VECTOR_BYTES == 64
  constexpr int kSubnormal = 0x20;  // which the instruction takes for zero
  const bool none = _kortestz_mask16_u8(_mm512_fpclass_ps_mask((__m512)v.low, kSubnormal),
                                        _mm512_fpclass_ps_mask((__m512)v.high, kSubnormal));
  if (__builtin_expect(none, 1))
    return (PerFloat<uint32_t>)_mm512_cvtne2ps_pbh((__m512)v.high, (__m512)v.low);
#endif
  return encode_in_integers(v);
}

template <Traffic kTraffic>
NORMKIT_INLINE inline void store_to(bfloat16* p, const Pair& v, Twice) {
  kTraffic == Traffic::streamed ? write_past(p, encode(v)) : write(p, encode(v));
}

// What is not there had better not be taken for a Twice.
Pair load(const float* p, Apart) = delete;
#if !defined(NORMKIT_APART)
template <Traffic kTraffic>
void store_to(bfloat16* p, const Pair& v, Apart) = delete;
#else
template <Traffic kTraffic>
NORMKIT_INLINE inline void store_to(bfloat16* p, const Pair& v, Apart) {
  const auto low = (PerFloat<uint32_t>)v.low, high = (PerFloat<uint32_t>)v.high;
  const auto mixed = [](PerFloat<uint32_t> lower, PerFloat<uint32_t> upper) NORMKIT_INLINE {
    return (PerFloat<uint32_t>)_mm256_blend_epi16((__m256i)lower, (__m256i)upper, 0b10101010);
  };
  const auto both = rounded(Halves{mixed(low >> 16, high), mixed(low, high << 16)});
  kTraffic == Traffic::streamed ? write_past(p, both) : write(p, both);
}

// What is in its order, apart; and back.
template <class T>
inline Pair load_apart(const T* p) {
  const Pair v = load(p, Twice{});
  const auto split = [](__m256 halves) {
    return (Vec<float>)_mm256_permute4x64_pd((__m256d)halves, 0b11011000);
  };
  return {split(_mm256_shuffle_ps((__m256)v.low, (__m256)v.high, 0b10001000)),
          split(_mm256_shuffle_ps((__m256)v.low, (__m256)v.high, 0b11011101))};
}
inline Pair load_apart(const bfloat16* p) { return load(p, Apart{}); }
inline Pair put_together(const Pair& v) {
  const __m256 low = _mm256_unpacklo_ps((__m256)v.low, (__m256)v.high);
  const __m256 high = _mm256_unpackhi_ps((__m256)v.low, (__m256)v.high);
  return {(Vec<float>)_mm256_permute2f128_ps(low, high, 0x20),
          (Vec<float>)_mm256_permute2f128_ps(low, high, 0x31)};
}
inline void store_together(double* p, Vec<double> even, Vec<double> odd) {
  const __m256d low = _mm256_unpacklo_pd((__m256d)even, (__m256d)odd);
  const __m256d high = _mm256_unpackhi_pd((__m256d)even, (__m256d)odd);
  store(p, (Vec<double>)_mm256_permute2f128_pd(low, high, 0x20));
  store(p + kLanes<double>, (Vec<double>)_mm256_permute2f128_pd(low, high, 0x31));
}
#endif

// What was summed apart or not, in its order.
template <bool kIsApart>
inline Pair in_order(const Pair& v) {
#if defined(NORMKIT_APART)
  if constexpr (kIsApart) return put_together(v);
#endif
  return v;
}
#endif

// Calls f with whether numbers per column lie apart, in a run (kernels.h), as a constant.
template <bool kIsApart>
struct IsApart {
  static constexpr bool value = kIsApart;
};
template <class T, class F>
inline void with_run(int64_t run, const F& f) {
  if constexpr (kApart<T>)
    if (run) return f(IsApart<true>{});
  f(IsApart<false>{});
}

template <bool kIsApart, class V>
inline V in_order(const V& v) {
  return v;
}
template <class A, class W>
inline Vec<A> broadcast_like(A a, W) {
  return broadcast(a);
}
template <class P, class T, class W>
inline auto load_unordered(const T* p, W width) {
  return load_as<P>(p, width);
}

}  // namespace normkit::NORMKIT_ISA
