// Loads and stores: whole vectors, parts and halves, into the cache or past it; and fetching ahead.
#pragma once

#include "conversions.h"

namespace normkit::NORMKIT_ISA {

#if defined(__AVX2__) && NORMKIT_VECTOR_BYTES == 32
inline __m256i first_floats(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_doubles(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
#endif

// The first n bytes of 8, an even number, the others zeros. Put together in a register: what is
// copied into a vector in memory can't be loaded as one until the copy has reached the cache.
inline uint64_t read_bytes(const char* p, int n) {
  if (n >= 8) return read<uint64_t>(p);
  uint64_t bits = n & 4 ? read<uint32_t>(p) : 0;
  if (n & 2) bits |= uint64_t(read<uint16_t>(p + (n & 4))) << 8 * (n & 4);
  return bits;
}
inline void write_bytes(char* p, uint64_t bits, int n) {
  if (n >= 8) return write(p, bits);
  if (n & 4) write(p, uint32_t(bits));
  if (n & 2) write(p + (n & 4), uint16_t(bits >> 8 * (n & 4)));
}

#if defined(__SSE2__)
inline void write_bytes(char* p, __m128i v, int n) {
  if (n >= 16) return write(p, v);
  write_bytes(p, (uint64_t)_mm_cvtsi128_si64(v), n);
  if (n > 8) write_bytes(p + 8, (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(v, v)), n - 8);
}
#endif

// The first n lanes of a vector; the others read as zeros and are not touched.
template <class V>
inline V read_part(const void* p, int n) {
  constexpr int kSize = sizeof(V{}[0]);
#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
  if constexpr (kSize == 4 && sizeof(V) == 64)
    return (V)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
  if constexpr (kSize == 8 && sizeof(V) == 64)
    return (V)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
  if constexpr (kSize == 2 && sizeof(V) == 32)
    return (V)_mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), p);
#elif defined(__AVX2__) && NORMKIT_VECTOR_BYTES == 32
  if constexpr (kSize == 4 && sizeof(V) == 32)
    return (V)_mm256_maskload_ps((const float*)p, first_floats(n));
  if constexpr (kSize == 8 && sizeof(V) == 32)
    return (V)_mm256_maskload_pd((const double*)p, first_doubles(n));
#endif
  if constexpr (sizeof(V) == 8) {
    const uint64_t bits = read_bytes((const char*)p, n * kSize);
    return read<V>(&bits);
  }
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 16) {
    const uint64_t low = read_bytes((const char*)p, n * kSize);
    const uint64_t high = n * kSize > 8 ? read_bytes((const char*)p + 8, n * kSize - 8) : 0;
    return (V)_mm_set_epi64x(high, low);
  }
#endif
  V v{};
  memcpy(&v, p, n * kSize);
  return v;
}

template <class V>
inline void write_part(void* p, V v, int n) {
  constexpr int kSize = sizeof(V{}[0]);
#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
  if constexpr (kSize == 4 && sizeof(V) == 64)
    return _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
  if constexpr (kSize == 8 && sizeof(V) == 64)
    return _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
  if constexpr (kSize == 2 && sizeof(V) == 32)
    return _mm256_mask_storeu_epi16(p, __mmask16((1u << n) - 1), (__m256i)v);
#endif
  if constexpr (sizeof(V) == 8) return write_bytes((char*)p, read<uint64_t>(&v), n * kSize);
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 16) return write_bytes((char*)p, (__m128i)v, n * kSize);
#endif
#if defined(__AVX2__)
  // Not by a masked store, which is 42 steps to Zen 3.
  if constexpr (sizeof(V) == 32) {
    const __m128i low = _mm256_castsi256_si128((__m256i)v);
    if (n * kSize <= 16) return write_bytes((char*)p, low, n * kSize);
    write(p, low);
    return write_bytes((char*)p + 16, _mm256_extracti128_si256((__m256i)v, 1), n * kSize - 16);
  }
#endif
  memcpy(p, &v, n * kSize);
}

template <class T>
inline Vec<accumulate_t<T>> load(const T* p, Full = {}) {
  return decode(T{}, read<Stored<T>>(p));
}
template <class T>
inline Vec<accumulate_t<T>> load(const T* p, Part part) {
  return decode(T{}, read_part<Stored<T>>(p, part.n));
}

template <class T>
inline void store(T* p, Vec<accumulate_t<T>> v, Full = {}) {
  write(p, encode(T{}, v));
}
template <class T>
inline void store(T* p, Vec<accumulate_t<T>> v, Part part) {
  write_part(p, encode(T{}, v), part.n);
}

// The half of a vector of floats that makes a vector of doubles.
using Floats = typename vector_of<float, kLanes<double>>::type;

template <int kHalf>
inline Vec<double> half(Vec<float> v) {
#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
  return (Vec<double>)_mm512_maskz_cvtps_pd(0xff,
                                            _mm512_maskz_extractf32x8_ps(0xff, (__m512)v, kHalf));
#elif defined(__AVX2__) && NORMKIT_VECTOR_BYTES == 32
  return (Vec<double>)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, kHalf));
#elif defined(__SSE2__) && NORMKIT_VECTOR_BYTES == 16
  return (Vec<double>)_mm_cvtps_pd(kHalf ? _mm_movehl_ps((__m128)v, (__m128)v) : (__m128)v);
#else
  return __builtin_convertvector(read<Floats>((const float*)&v + kHalf * kLanes<double>),
                                 Vec<double>);
#endif
}

// The first half of a vector; the other lanes are zeros, and nothing of them is read: where they
// are not used GCC 12 makes a whole load of one that masks a constant number of lanes.
template <class V>
inline V read_half(const void* p) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) return (V)_mm512_zextsi256_si512(_mm256_loadu_si256((__m256i*)p));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32) return (V)_mm256_zextsi128_si256(_mm_loadu_si128((__m128i*)p));
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 16) return (V)_mm_loadl_epi64((__m128i*)p);
#endif
  if constexpr (sizeof(V) == 8) {
    const uint64_t bits = read<uint32_t>(p);
    return read<V>(&bits);
  }
  V v{};
  memcpy(&v, p, sizeof v / 2);
  return v;
}

// As many elements as a vector of P holds, as P.
template <class P, class T, class W>
inline Vec<P> load_as(const T* p, W width) {
  if constexpr (sizeof(P) == sizeof(accumulate_t<T>)) {
    return load(p, width);
  } else if constexpr (W::part) {
    return half<0>(load(p, width));
  } else {
    return half<0>(decode(T{}, read_half<Stored<T>>(p)));
  }
}

// Past the cache: the line is not read before it is written, and pushes nothing out. p must be
// aligned to the vector; a fence must follow before another thread may look.
template <class V>
inline void write_past(void* p, V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) return _mm512_stream_si512((__m512i*)p, (__m512i)v);
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32) return _mm256_stream_si256((__m256i*)p, (__m256i)v);
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 16) return _mm_stream_si128((__m128i*)p, (__m128i)v);
#endif
  write(p, v);
}

template <Traffic kTraffic, class T, class W>
inline void store_to(T* p, Vec<accumulate_t<T>> v, W width) {
  if constexpr (kTraffic == Traffic::streamed && !W::part)
    write_past(p, encode(T{}, v));
  else
    store(p, v, width);
}

// Calls f with the traffic as a constant.
template <Traffic kTraffic>
struct Constant {
  static constexpr Traffic value = kTraffic;
};
template <class F>
inline void with_traffic(Traffic traffic, const F& f) {
  traffic == Traffic::streamed ? f(Constant<Traffic::streamed>{}) : f(Constant<Traffic::cached>{});
}

template <class T>
inline accumulate_t<T> load_one(const T* p) {
  return load(p, Part{1})[0];
}

// A pass that only reads and one that only writes each leave half of memory idle. So while one
// piece of data is written, the next is fetched. The address may lie past the end: a prefetch never
// faults. k counts the vectors of a sweep, so that a line of several is asked for once. Always
// inline: of a function that does nothing but prefetch GCC 12 finds that it does nothing, and drops
// the calls.
template <Traffic kTraffic, class T>
NORMKIT_INLINE inline void fetch(int k, const T* p) {
  if (kTraffic == Traffic::streamed && k * int(sizeof(Stored<T>)) % 64 == 0)
    __builtin_prefetch(p, 0, 2);
}

}  // namespace normkit::NORMKIT_ISA
