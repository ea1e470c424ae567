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

#if defined(__F16C__) || defined(__AVX512F__)
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
struct Full {};
struct Part {
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

// ------------------------------------------------------- half types to float
inline Vec<float> widen(const bfloat16* p) {
  Wide<uint32_t> bits = __builtin_convertvector(read<Wide<uint16_t>>(p), Wide<uint32_t>) << 16;
  return read<Vec<float>>(&bits);
}

inline void narrow(bfloat16* p, Vec<float> v) {
  Wide<uint32_t> bits = read<Wide<uint32_t>>(&v);
  Wide<uint32_t> rounded =
      (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  Wide<uint32_t> quiet_nan = (bits >> 16) | 0x40u;
  bits = (bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded;
  write(p, __builtin_convertvector(bits, Wide<uint16_t>));
}

#if defined(__AVX512F__)
// The zero-masked forms: GCC 12 warns of its own undefined vector in the plain ones.
inline Vec<float> widen(const float16* p) {
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, read<__m256i>(p));
}
inline void narrow(float16* p, Vec<float> v) {
  write(p, _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__F16C__)
inline Vec<float> widen(const float16* p) { return (Vec<float>)_mm256_cvtph_ps(read<__m128i>(p)); }
inline void narrow(float16* p, Vec<float> v) {
  write(p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
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

inline void narrow(float16* p, Vec<float> v) {
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
  write(p, __builtin_convertvector(half | sign, Wide<uint16_t>));
}
#endif

// -------------------------------------------------------------- load and store
inline Vec<float> load(const float* p, Full = {}) { return read<Vec<float>>(p); }
inline Vec<double> load(const double* p, Full = {}) { return read<Vec<double>>(p); }
inline Vec<float> load(const bfloat16* p, Full = {}) { return widen(p); }
inline Vec<float> load(const float16* p, Full = {}) { return widen(p); }

inline void store(float* p, Vec<float> v, Full = {}) { write(p, v); }
inline void store(double* p, Vec<double> v, Full = {}) { write(p, v); }
inline void store(bfloat16* p, Vec<float> v, Full = {}) { narrow(p, v); }
inline void store(float16* p, Vec<float> v, Full = {}) { narrow(p, v); }

template <class T>
inline Vec<accumulate_t<T>> load(const T* p, Part part) {
  T lanes[kLanes<accumulate_t<T>>] = {};
  memcpy(lanes, p, part.n * sizeof(T));
  return load(lanes);
}

template <class T>
inline void store(T* p, Vec<accumulate_t<T>> v, Part part) {
  T lanes[kLanes<accumulate_t<T>>];
  store(lanes, v);
  memcpy(p, lanes, part.n * sizeof(T));
}

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

// body(k, i, width) for every vector of [0, n); k in 0..3 names an independent chain of additions,
// enough of them to hide an addition's latency.
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
  if (i < end) body(0, i, Part{int(end - i)});
}

// Elements summed in A before the sum goes on in double: bounds the rounding error of long rows.
constexpr int64_t kSumBlock = 4096;

// total[s] += sum over i in [0, n) of term s; term(i, width, out) fills out[0..S).
template <int S, class A, class Term>
NORMKIT_INLINE inline void add_sums(int64_t n, double (&total)[S], Term&& term) {
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    int64_t end = n - begin < kSumBlock ? n : begin + kSumBlock;
    Vec<A> chain[S][4] = {};
    sweep<A>(begin, end, [&](int k, int64_t i, auto width) NORMKIT_INLINE {
      Vec<A> out[S];
      term(i, width, out);
      for (int s = 0; s < S; ++s) chain[s][k] += keep<A>(out[s], width);
    });
    for (int s = 0; s < S; ++s)
      total[s] += add_lanes<A>((chain[s][0] + chain[s][1]) + (chain[s][2] + chain[s][3]));
  }
}

}  // namespace normkit::NORMKIT_ISA
