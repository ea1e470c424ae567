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

#if defined(NORMKIT_PAIRS)
template <>
inline constexpr bool kPairs<bfloat16> = true;

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
inline void store(float* p, const Pair& v, Twice) {
  store(p, v.low);
  store(p + kLanes<float>, v.high);
}
template <class P, class T>
inline Pair load_as(const T* p, Twice width) {
  return load(p, width);
}
inline Pair broadcast_like(float a, Twice) { return {broadcast(a), broadcast(a)}; }

// The lanes of two vectors of bfloat16 in no order, for sums: a bfloat16 is the upper half of a
// float, so that one shift and one mask decode all of them, where widening takes a shuffle more.
template <class P>
inline Pair load_unordered(const bfloat16* p, Twice) {
  const auto both = read<PerFloat<uint32_t>>(p);
  return {(Vec<float>)(both << 16), (Vec<float>)(both & 0xffff0000u)};
}

// The upper halves of all lanes, packed.
inline PerFloat<uint32_t> upper_halves(PerFloat<uint32_t> low, PerFloat<uint32_t> high) {
#if NORMKIT_VECTOR_BYTES == 64
  alignas(64) static constexpr uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                      23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                      45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return (PerFloat<uint32_t>)_mm512_permutex2var_epi16((__m512i)low, _mm512_load_si512(kUpper),
                                                       (__m512i)high);
#else
  const __m256i packed = _mm256_packus_epi32((__m256i)(low >> 16), (__m256i)(high >> 16));
  return (PerFloat<uint32_t>)_mm256_permute4x64_epi64(packed, 0b11011000);
#endif
}
inline PerFloat<uint32_t> encode_in_integers(const Pair& v) {
  return upper_halves(rounded_bits(v.low), rounded_bits(v.high));
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
#endif

template <class A, class W>
inline Vec<A> broadcast_like(A a, W) {
  return broadcast(a);
}
template <class P, class T, class W>
inline auto load_unordered(const T* p, W width) {
  return load_as<P>(p, width);
}

}  // namespace normkit::NORMKIT_ISA
