// Vectors of float or double in the compiler's own notation (GCC and Clang vector extensions), so
// that one source serves AVX-512, AVX2, SSE2 and NEON. The including file defines
//   NORMKIT_ISA           the namespace of this instruction set
//   NORMKIT_VECTOR_BYTES  its vector width
// Nothing here may use the standard library: an inline function of std compiled with AVX-512 could
// be the copy the linker keeps for everyone.
#pragma once

#include <stdint.h>
#include <string.h>

#include "../kernels.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// A loop's body stands in it several times, for whole vectors and for the rest; left to itself the
// compiler makes it a function, and what should be in registers goes through memory.
#define NORMKIT_INLINE __attribute__((always_inline))

namespace normkit::NORMKIT_ISA {

template <class A>
constexpr int kLanes = NORMKIT_VECTOR_BYTES / sizeof(A);

template <class E, int N>
struct vector_of {
  typedef E type __attribute__((vector_size(N * sizeof(E))));
};
template <class A>
using Vec = typename vector_of<A, kLanes<A>>::type;
template <class E>
using Wide = typename vector_of<E, kLanes<float>>::type;  // one E per float lane

// How much of a vector an access may touch: all of it, or the first n lanes.
struct Full {
  static constexpr bool part = false;
};
struct Part {
  static constexpr bool part = true;
  int n;
};

template <class A>
inline Vec<A> broadcast(A a) {
  return a - Vec<A>{};
}

template <class V, class P>
inline V read(const P* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class P>
inline void write(P* p, V v) {
  memcpy(p, &v, sizeof v);
}

// a * b + c, rounded once where the instruction set can: error-free products rest on it.
template <class V>
inline V fused(V a, V b, V c) {
#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
  if constexpr (sizeof(a[0]) == 4)
    return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  else
    return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__) && NORMKIT_VECTOR_BYTES == 32
  if constexpr (sizeof(a[0]) == 4)
    return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  else
    return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__ARM_FEATURE_FMA)
  for (int i = 0; i < int(sizeof(V) / sizeof(a[0])); ++i)
    c[i] = sizeof(a[0]) == 4 ? __builtin_fmaf(a[i], b[i], c[i]) : __builtin_fma(a[i], b[i], c[i]);
  return c;
#else
  return a * b + c;
#endif
}

// ------------------------------------------------------- half types to float
inline Vec<float> widen(const bfloat16* p) {
  Wide<uint32_t> bits = __builtin_convertvector(read<Wide<uint16_t>>(p), Wide<uint32_t>) << 16;
  return read<Vec<float>>(&bits);
}

inline Wide<uint16_t> narrow(bfloat16, Vec<float> v) {
  Wide<uint32_t> bits = read<Wide<uint32_t>>(&v);
  Wide<uint32_t> rounded =
      (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  Wide<uint32_t> quiet_nan = (bits >> 16) | 0x40u;
  bits = (bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded;
  return __builtin_convertvector(bits, Wide<uint16_t>);
}

#if defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64
// The zero-masked forms: GCC 12 warns of its own undefined vector in the plain ones.
inline Vec<float> widen(const float16* p) {
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, read<__m256i>(p));
}
inline Wide<uint16_t> narrow(float16, Vec<float> v) {
  return (Wide<uint16_t>)_mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__F16C__) && NORMKIT_VECTOR_BYTES == 32
inline Vec<float> widen(const float16* p) { return (Vec<float>)_mm256_cvtph_ps(read<__m128i>(p)); }
inline Wide<uint16_t> narrow(float16, Vec<float> v) {
  return (Wide<uint16_t>)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
}
#else
// In integers where the CPU has no conversion: moving the 15 value bits up by 13 makes a float
// whose exponent is 112 too small; multiplying by 2^112 mends normal and subnormal numbers alike.
inline Vec<float> widen(const float16* p) {
  Wide<uint32_t> half = __builtin_convertvector(read<Wide<uint16_t>>(p), Wide<uint32_t>);
  Wide<uint32_t> shifted = (half & 0x7fffu) << 13;
  Vec<float> scaled = read<Vec<float>>(&shifted) * 0x1p112f;
  Wide<uint32_t> bits = read<Wide<uint32_t>>(&scaled);
  bits = (half & 0x7c00u) == 0x7c00u ? (shifted | 0x7f800000u) : bits;
  bits |= (half & 0x8000u) << 16;
  return read<Vec<float>>(&bits);
}

inline Wide<uint16_t> narrow(float16, Vec<float> v) {
  Wide<uint32_t> bits = read<Wide<uint32_t>>(&v);
  Wide<uint32_t> sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  Wide<uint32_t> normal = (bits + 0xfffu + ((bits >> 13) & 1u) - 0x38000000u) >> 13;
  // Adding 0.5 leaves a subnormal half's bits, rounded to even, at the low end of the sum.
  Vec<float> small = read<Vec<float>>(&bits) + 0.5f;
  Wide<uint32_t> subnormal = read<Wide<uint32_t>>(&small) - 0x3f000000u;
  Wide<uint32_t> half = bits < 0x38800000u ? subnormal : normal;
  half = bits >= 0x477ff000u ? Wide<uint32_t>{} + 0x7c00u : half;  // 65520 and above: infinity
  half = bits > 0x7f800000u ? Wide<uint32_t>{} + 0x7e00u : half;
  return __builtin_convertvector(half | sign, Wide<uint16_t>);
}
#endif

// -------------------------------------------------------------- load and store
inline Vec<double> decode(const double* p) { return read<Vec<double>>(p); }
inline Vec<float> decode(const float* p) { return read<Vec<float>>(p); }
inline Vec<float> decode(const bfloat16* p) { return widen(p); }
inline Vec<float> decode(const float16* p) { return widen(p); }

inline Vec<double> encode(double, Vec<double> v) { return v; }
inline Vec<float> encode(float, Vec<float> v) { return v; }
inline Wide<uint16_t> encode(bfloat16 t, Vec<float> v) { return narrow(t, v); }
inline Wide<uint16_t> encode(float16 t, Vec<float> v) { return narrow(t, v); }

template <class T>
inline Vec<accumulate_t<T>> load(const T* p, Full = {}) {
  return decode(p);
}

template <class T>
inline Vec<accumulate_t<T>> load(const T* p, Part part) {
  T lanes[kLanes<accumulate_t<T>>] = {};
  memcpy(lanes, p, part.n * sizeof(T));
  return decode(lanes);
}

template <class T>
inline void store(T* p, Vec<accumulate_t<T>> v, Full = {}) {
  write(p, encode(T{}, v));
}

template <class T>
inline void store(T* p, Vec<accumulate_t<T>> v, Part part) {
  T lanes[kLanes<accumulate_t<T>>];
  store(lanes, v);
  memcpy(p, lanes, part.n * sizeof(T));
}

// Floats as doubles, as many as a vector of doubles holds.
using Floats = typename vector_of<float, kLanes<double>>::type;

template <class P, class T, class W>
inline Vec<P> load_as(const T* p, W width) {
  if constexpr (sizeof(P) == sizeof(accumulate_t<T>)) {
    return load(p, width);
  } else if constexpr (W::part) {
    T lanes[kLanes<P>] = {};
    memcpy(lanes, p, width.n * sizeof(T));
    return load_as<P>(lanes, Full{});
  } else {
    return __builtin_convertvector(read<Floats>(p), Vec<double>);
  }
}

inline void store(float* p, Vec<double> v, Full = {}) {
  write(p, __builtin_convertvector(v, Floats));
}

inline void store(float* p, Vec<double> v, Part part) {
  float lanes[kLanes<double>];
  store(lanes, v);
  memcpy(p, lanes, part.n * sizeof(float));
}

// Past the cache: the line is not read before it is written, and pushes nothing out. p must be
// aligned to the vector; fence() before another thread may look.
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

inline void fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <bool kStream, class T, class W>
inline void store_to(T* p, Vec<accumulate_t<T>> v, W width) {
  if constexpr (kStream && !W::part)
    write_past(p, encode(T{}, v));
  else
    store(p, v, width);
}

inline bool streamable(const void* p) { return (uintptr_t)p % 64 == 0; }

template <class T>
inline accumulate_t<T> load_one(const T* p) {
  return load(p, Part{1})[0];
}

// A pass that only reads and one that only writes each leave half of memory idle. So while one
// piece of data is handled in cache, the next is fetched, and the lines about to be written are
// claimed. The address may lie past the end: a prefetch never faults.
template <class T>
inline void fetch(const T* p) {
  __builtin_prefetch(p, 0, 2);
}
template <class T>
inline void fetch_to_write(const T* p) {
  __builtin_prefetch(p, 1, 2);
}

// ------------------------------------------------------------------- reductions
template <class A>
inline Vec<A> keep(Vec<A> v, Full) {
  return v;
}
template <class A>
inline Vec<A> keep(Vec<A> v, Part part) {
  for (int i = part.n; i < kLanes<A>; ++i) v[i] = 0;
  return v;
}

template <class A>
inline double add_lanes(Vec<A> v) {
  double lane[kLanes<A>];
  for (int i = 0; i < kLanes<A>; ++i) lane[i] = v[i];
  for (int half = kLanes<A> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

// body(k, i, width) for every vector of [begin, end); k in 0..3 names an independent chain of
// additions, enough of them to hide an addition's latency.
template <class A, class Body>
NORMKIT_INLINE inline void sweep(int64_t begin, int64_t end, Body&& body) {
  constexpr int L = kLanes<A>;
  int64_t i = begin;
  for (; i + 4 * L <= end; i += 4 * L) {
    body(0, i, Full{});
    body(1, i + L, Full{});
    body(2, i + 2 * L, Full{});
    body(3, i + 3 * L, Full{});
  }
  for (; i + L <= end; i += L) body(0, i, Full{});
  if (i < end) body(1, i, Part{int(end - i)});
}

// Four terms make a chain in A, then the sum goes on in double: a long row's sum is as good as a
// short one's, also where equal terms would round the same way each time.
constexpr int kTermsPerChain = 4;

template <class A>
inline void add_wide(Vec<double> (&wide)[2], const Vec<A> (&chain)[4]) {
  const Vec<A> sum = (chain[0] + chain[1]) + (chain[2] + chain[3]);
  if constexpr (sizeof(A) == sizeof(double)) {
    wide[0] += sum;
  } else {
    const float* lanes = (const float*)&sum;
    wide[0] += load_as<double>(lanes, Full{});
    wide[1] += load_as<double>(lanes + kLanes<double>, Full{});
  }
}

// total[s] += sum over i in [0, n) of term s; term(i, width, out) fills out[0..S).
template <int S, class A, class Term>
NORMKIT_INLINE inline void add_sums(int64_t n, double (&total)[S], Term&& term) {
  constexpr int64_t kBlock = 4 * kTermsPerChain * kLanes<A>;
  Vec<double> wide[S][2] = {};
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    Vec<A> chain[S][4] = {};
    const auto add = [&](int k, int64_t i, auto width) NORMKIT_INLINE {
      Vec<A> out[S];
      term(i, width, out);
      for (int s = 0; s < S; ++s) chain[s][k] += keep<A>(out[s], width);
    };
    if (n - begin >= kBlock)
      sweep<A>(begin, begin + kBlock, add);
    else
      sweep<A>(begin, n, add);
    for (int s = 0; s < S; ++s) add_wide<A>(wide[s], chain[s]);
  }
  for (int s = 0; s < S; ++s) total[s] += add_lanes<double>(wide[s][0] + wide[s][1]);
}

}  // namespace normkit::NORMKIT_ISA
