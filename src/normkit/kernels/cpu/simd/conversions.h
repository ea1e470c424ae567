// Vectors of every dtype to what is computed in, and back.
#pragma once

#include "vector.h"

namespace normkit::NORMKIT_ISA {

// How a vector of T lies in memory, and its way to and from what is computed in.
template <class T>
struct stored {
  using type = PerFloat<uint16_t>;
};
template <>
struct stored<float> {
  using type = Vec<float>;
};
template <>
struct stored<double> {
  using type = Vec<double>;
};
template <class T>
using Stored = typename stored<T>::type;

inline Vec<double> decode(double, Vec<double> v) { return v; }
inline Vec<float> decode(float, Vec<float> v) { return v; }
inline Vec<double> encode(double, Vec<double> v) { return v; }
inline Vec<float> encode(float, Vec<float> v) { return v; }

// 16-bit lanes to 32 and back. Named instructions where there are, for GCC 12 makes four of each.
inline PerFloat<uint32_t> widen(PerFloat<uint16_t> v) {
#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
  return (PerFloat<uint32_t>)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)v);
#elif defined(__AVX2__) && NORMKIT_VECTOR_BYTES == 32
  return (PerFloat<uint32_t>)_mm256_cvtepu16_epi32((__m128i)v);
#elif defined(__SSE2__) && NORMKIT_VECTOR_BYTES == 16
  return (PerFloat<uint32_t>)_mm_unpacklo_epi16(_mm_cvtsi64_si128(read<int64_t>(&v)), __m128i{});
#else
  return __builtin_convertvector(v, PerFloat<uint32_t>);
#endif
}

// Of numbers that 16 bits hold with their sign.
inline PerFloat<uint16_t> narrow(PerFloat<int32_t> v) {
#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
  return (PerFloat<uint16_t>)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)v);
#elif defined(__AVX2__) && NORMKIT_VECTOR_BYTES == 32
  return (PerFloat<uint16_t>)_mm_packs_epi32(_mm256_castsi256_si128((__m256i)v),
                                             _mm256_extracti128_si256((__m256i)v, 1));
#elif defined(__SSE2__) && NORMKIT_VECTOR_BYTES == 16
  const __m128i packed = _mm_packs_epi32((__m128i)v, (__m128i)v);
  return read<PerFloat<uint16_t>>(&packed);
#else
  return __builtin_convertvector(v, PerFloat<uint16_t>);
#endif
}

// A bfloat16 is the upper half of a float.
inline Vec<float> decode(bfloat16, PerFloat<uint16_t> v) {
#if defined(__SSE2__) && NORMKIT_VECTOR_BYTES == 16
  return (Vec<float>)_mm_unpacklo_epi16(__m128i{}, _mm_cvtsi64_si128(read<int64_t>(&v)));
#else
  return (Vec<float>)(widen(v) << 16);
#endif
}

// A bfloat16 in the upper half of each lane: to nearest, ties to even, by adding just under half of
// a last place. A NaN had better not be all ones, or it overflows; those of bfloat16 have nothing
// but zeros in the lower half, and operations keep them. What is of another dtype and may hold any
// is made `canonical` before it meets them.
inline PerFloat<uint32_t> rounded_bits(Vec<float> v) {
  const PerFloat<uint32_t> bits = read<PerFloat<uint32_t>>(&v);
  return bits + (0x7fffu + ((bits >> 16) & 1u));
}
// With one and the same NaN for all there are.
template <class V>
inline V canonical(V v) {
  return v == v ? v : V{} + __builtin_nanf("");
}
inline PerFloat<uint16_t> encode_in_integers(Vec<float> v) {
  return narrow((PerFloat<int32_t>)rounded_bits(v) >> 16);
}

inline PerFloat<uint16_t> encode(bfloat16, Vec<float> v) {
#if defined(__AVX512BF16__) && NORMKIT_VECTOR_BYTES == 64
  // The instruction takes subnormal numbers for zero.
  constexpr int kSubnormal = 0x20;
  if (__builtin_expect(_mm512_fpclass_ps_mask((__m512)v, kSubnormal) == 0, 1))
    return (PerFloat<uint16_t>)_mm512_cvtneps_pbh((__m512)v);
#endif
  return encode_in_integers(v);
}

#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
// The zero-masked forms: GCC 12 warns of its own undefined vector in the plain ones.
inline Vec<float> decode(float16, PerFloat<uint16_t> v) {
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, (__m256i)v);
}
inline PerFloat<uint16_t> encode(float16, Vec<float> v) {
  return (PerFloat<uint16_t>)_mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__F16C__) && NORMKIT_VECTOR_BYTES == 32
inline Vec<float> decode(float16, PerFloat<uint16_t> v) {
  return (Vec<float>)_mm256_cvtph_ps((__m128i)v);
}
inline PerFloat<uint16_t> encode(float16, Vec<float> v) {
  return (PerFloat<uint16_t>)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
}
#else
// In integers where the CPU has no conversion: moving the 15 value bits up by 13 makes a float
// whose exponent is 112 too small; multiplying by 2^112 mends normal and subnormal numbers alike.
inline Vec<float> decode(float16, PerFloat<uint16_t> v) {
  PerFloat<uint32_t> half = widen(v);
  PerFloat<uint32_t> shifted = (half & 0x7fffu) << 13;
  Vec<float> scaled = read<Vec<float>>(&shifted) * 0x1p112f;
  PerFloat<uint32_t> bits = read<PerFloat<uint32_t>>(&scaled);
  bits = (half & 0x7c00u) == 0x7c00u ? (shifted | 0x7f800000u) : bits;
  bits |= (half & 0x8000u) << 16;
  return read<Vec<float>>(&bits);
}

inline PerFloat<uint16_t> encode(float16, Vec<float> v) {
  PerFloat<uint32_t> bits = read<PerFloat<uint32_t>>(&v);
  PerFloat<uint32_t> sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  PerFloat<uint32_t> normal = (bits + 0xfffu + ((bits >> 13) & 1u) - 0x38000000u) >> 13;
  // Adding 0.5 leaves a subnormal half's bits, rounded to even, at the low end of the sum.
  Vec<float> small = read<Vec<float>>(&bits) + 0.5f;
  PerFloat<uint32_t> subnormal = read<PerFloat<uint32_t>>(&small) - 0x3f000000u;
  PerFloat<uint32_t> half = bits < 0x38800000u ? subnormal : normal;
  half = bits >= 0x477ff000u ? PerFloat<uint32_t>{} + 0x7c00u : half;  // 65520 and above: infinity
  half = bits > 0x7f800000u ? PerFloat<uint32_t>{} + 0x7e00u : half;
  return narrow((PerFloat<int32_t>)((half | sign) << 16) >> 16);
}
#endif

}  // namespace normkit::NORMKIT_ISA
