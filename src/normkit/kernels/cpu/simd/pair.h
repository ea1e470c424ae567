// Two vectors of bfloat16 at once, the even ones in one vector of floats and the odd ones in
// another: a bfloat16 is the upper half of a float, so that one shift and one mask decode them all,
// where widening sixteen takes a shuffle and a shift.
#pragma once

#include "vector.h"

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
  Vec<float> even, odd;
};

// What a pair meets in a formula is another pair or one vector for both.
inline Vec<float> evens(const Pair& p) { return p.even; }
inline Vec<float> odds(const Pair& p) { return p.odd; }
inline Vec<float> evens(Vec<float> v) { return v; }
inline Vec<float> odds(Vec<float> v) { return v; }

template <class V>
NORMKIT_INLINE inline Pair operator+(const Pair& a, const V& b) {
  return {a.even + evens(b), a.odd + odds(b)};
}
template <class V>
NORMKIT_INLINE inline Pair operator-(const Pair& a, const V& b) {
  return {a.even - evens(b), a.odd - odds(b)};
}
template <class V>
NORMKIT_INLINE inline Pair operator*(const Pair& a, const V& b) {
  return {a.even * evens(b), a.odd * odds(b)};
}
template <class V, class W>
NORMKIT_INLINE inline Pair fused(const Pair& a, const V& b, const W& c) {
  return {fused(evens(a), evens(b), evens(c)), fused(odds(a), odds(b), odds(c))};
}
NORMKIT_INLINE inline Pair fused(const Pair& a, const Pair& b, const Pair& c) {
  return {fused(a.even, b.even, c.even), fused(a.odd, b.odd, c.odd)};
}

inline Pair load(const bfloat16* p, Twice) {
  const auto both = read<PerFloat<uint32_t>>(p);
  return {(Vec<float>)(both << 16), (Vec<float>)(both & 0xffff0000u)};
}

template <class P>
inline Pair load_as(const bfloat16* p, Twice width) {
  return load(p, width);
}

inline PerFloat<uint32_t> encode_in_integers(const Pair& v) {
  return rounded_bits(v.even) >> 16 | (rounded_bits(v.odd) & 0xffff0000u);
}

inline PerFloat<uint32_t> encode(const Pair& v) {
#if defined(__AVX512BF16__) && NORMKIT_VECTOR_BYTES == 64
  constexpr int kSubnormal = 0x20;  // which the instruction takes for zero
  const bool none = _kortestz_mask16_u8(_mm512_fpclass_ps_mask((__m512)v.even, kSubnormal),
                                        _mm512_fpclass_ps_mask((__m512)v.odd, kSubnormal));
  if (__builtin_expect(none, 1)) {
    alignas(64) static constexpr uint16_t kAlternate[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)v.odd, (__m512)v.even);
    return (PerFloat<uint32_t>)_mm512_maskz_permutexvar_epi16(
        ~__mmask32(0), _mm512_load_si512(kAlternate), halves);
  }
#endif
  return encode_in_integers(v);
}

template <Traffic kTraffic>
NORMKIT_INLINE inline void store_to(bfloat16* p, const Pair& v, Twice) {
  kTraffic == Traffic::streamed ? write_past(p, encode(v)) : write(p, encode(v));
}

// Floats that belong to a pair, which lie in their natural order.
#if NORMKIT_VECTOR_BYTES == 64
struct Order {
  alignas(64) int32_t even[16], odd[16], first[16], second[16];
};
inline constexpr Order kOrder = [] {
  Order order{};
  for (int i = 0; i < 16; ++i) {
    order.even[i] = 2 * i;
    order.odd[i] = 2 * i + 1;
    order.first[i] = i / 2 + 16 * (i % 2);
    order.second[i] = 8 + i / 2 + 16 * (i % 2);
  }
  return order;
}();

inline Vec<float> choose(Vec<float> a, const int32_t* lanes, Vec<float> b) {
  return (Vec<float>)_mm512_permutex2var_ps((__m512)a, _mm512_load_si512(lanes), (__m512)b);
}
inline Pair apart(Vec<float> a, Vec<float> b) {
  return {choose(a, kOrder.even, b), choose(a, kOrder.odd, b)};
}
inline Vec<float> first_of(const Pair& v) { return choose(v.even, kOrder.first, v.odd); }
inline Vec<float> second_of(const Pair& v) { return choose(v.even, kOrder.second, v.odd); }
#else
// Within halves of a vector, which are then put in their places.
inline Vec<float> in_place(__m256 v) {
  return (Vec<float>)_mm256_permute4x64_epi64((__m256i)v, 0b11011000);
}
inline Pair apart(Vec<float> a, Vec<float> b) {
  return {in_place(_mm256_shuffle_ps((__m256)a, (__m256)b, 0b10001000)),
          in_place(_mm256_shuffle_ps((__m256)a, (__m256)b, 0b11011101))};
}
template <int kHalves>
inline Vec<float> together(const Pair& v) {
  return (Vec<float>)_mm256_permute2f128_ps(_mm256_unpacklo_ps((__m256)v.even, (__m256)v.odd),
                                            _mm256_unpackhi_ps((__m256)v.even, (__m256)v.odd),
                                            kHalves);
}
inline Vec<float> first_of(const Pair& v) { return together<0x20>(v); }
inline Vec<float> second_of(const Pair& v) { return together<0x31>(v); }
#endif

inline Pair load(const float* p, Twice) { return apart(load(p), load(p + kLanes<float>)); }
inline void store(float* p, const Pair& v, Twice) {
  store(p, first_of(v));
  store(p + kLanes<float>, second_of(v));
}
template <class P>
inline Pair load_as(const float* p, Twice width) {
  return load(p, width);
}
inline Pair broadcast_like(float a, Twice) { return {broadcast(a), broadcast(a)}; }
#endif

template <class A, class W>
inline Vec<A> broadcast_like(A a, W) {
  return broadcast(a);
}

}  // namespace normkit::NORMKIT_ISA
