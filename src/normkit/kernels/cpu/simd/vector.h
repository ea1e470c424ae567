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

// Where bfloat16 are handled in pairs of vectors (pair.h).
#if (defined(__AVX512F__) && NORMKIT_VECTOR_BYTES == 64) || \
    (defined(__AVX2__) && NORMKIT_VECTOR_BYTES == 32)
#define NORMKIT_PAIRS
#endif
// Where their even and odd numbers had better lie apart.
#if defined(__AVX2__) && NORMKIT_VECTOR_BYTES == 32
#define NORMKIT_APART
#endif

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
using PerFloat = typename vector_of<E, kLanes<float>>::type;  // one E per float lane

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

// What is subtracted from much, in every lane. It is kept negative: x86 takes either side of an
// addition from memory in the same instruction, of a subtraction the right side alone. (Negated as
// a vector it would not be: the compiler makes a subtraction of it again.)
template <class V>
struct Subtrahend {
  V negative;
};
template <class A>
inline Subtrahend<Vec<A>> subtrahend(A a) {
  return {broadcast(A(-a))};
}
template <class V>
inline V operator-(const V& a, const Subtrahend<V>& b) {
  return a + b.negative;
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

// Whether `fused` rounds once.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif

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

}  // namespace normkit::NORMKIT_ISA
