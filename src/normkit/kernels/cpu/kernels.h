// The interface between the operators and the SIMD bodies: plain pointers and numbers, no
// instruction-set types. Each body is compiled once per instruction set (simd/*.cpp) and chosen
// when the library is loaded (dispatch.cpp).
//
// T is the dtype of the activations, A the dtype statistics, gain and bias are held in:
// float for bfloat16, float16 and float; double for double.
#pragma once

#include <cstdint>

namespace normkit {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

template <class T>
struct accumulate {
  using type = float;
};
template <>
struct accumulate<double> {
  using type = double;
};
template <class T>
using accumulate_t = typename accumulate<T>::type;

// What BatchNorm's last step, (x - mean) * scale + bias, is computed in: double for float, so that
// the result is the exact one rounded once also where the bias cancels. A half's rounding hides
// float's.
template <class T>
struct apply {
  using type = accumulate_t<T>;
};
template <>
struct apply<float> {
  using type = double;
};
template <class T>
using apply_t = typename apply<T>::type;

// A mean as two numbers. (x - mean) is exact where x and mean are close, and the residual then
// restores what rounding the mean to A took away: at an offset of 1e4 that is half of 1e-3.
template <class A>
struct Mean {
  A mean = 0;
  A residual = 0;
};

// The exact sum shift + m, by Knuth's two-sum. Static: no instruction set may lend its copy to
// another.
template <class A>
[[maybe_unused]] static Mean<A> split_mean(double shift, double m) {
  const double sum = shift + m, tail = sum - shift;
  const double lost = (shift - (sum - tail)) + (m - tail);
  const A mean = A(sum);
  return {mean, A((sum - double(mean)) + lost)};
}

// ---------------------------------------------------------------- row norms
// A row is n adjacent elements that share statistics. Row r of x starts at x + r * x_stride; y and
// grad_x are dense. Any of gain, bias and the statistics may be null: a gain of 1, no bias,
// not centred, nothing saved.

template <class A>
struct RowStatistics {
  A* rstd = nullptr;      // 1 / sqrt(var + eps), or 1 / (sqrt(var) + eps)
  A* mean = nullptr;      // the mean rounded to A, and
  A* residual = nullptr;  // what the rounding lost: (x - mean) - residual keeps its precision
  A* slope = nullptr;     // eps outside the root: (sqrt(var) + eps) / sqrt(var); 1 otherwise
};

template <class T, class A = accumulate_t<T>>
struct RowForward {
  const T* x;
  int64_t x_stride;
  T* y;
  const A* gain;
  const A* bias;
  RowStatistics<A> save;
  int64_t n;
  double eps;
  bool centred;
  bool outside;
  bool stream;  // whether y is too large to be found in cache by whoever reads it next
};

template <class T, class A = accumulate_t<T>>
struct RowBackward {
  const T* grad_y;
  int64_t grad_y_stride;
  const T* x;
  int64_t x_stride;
  const A* gain;
  RowStatistics<A> saved;
  T* grad_x;  // null: not wanted
  int64_t rows;
  int64_t n;
  int64_t block_rows;  // rows whose weight gradients are summed into one partial
  A* grad_gain;        // [blocks, n] partial sums, or null
  A* grad_bias;        // [blocks, n] partial sums, or null
  bool stream;
};

// ------------------------------------------------------------ channel norms
// planar: (N, C, S) with the S positions of one plane adjacent.
// interleaved: (M, C) with the C channels of one position adjacent ("channels last").

struct Moments {
  double count;
  double mean;  // relative to the shift the caller gave
  double m2;    // sum of squared deviations from the mean
};

struct GradientSums {
  double grad;        // sum of grad_y
  double grad_x_hat;  // sum of grad_y * x_hat
};

// One channel's plane pieces: `batch` runs of `length` adjacent elements, `stride` apart.
template <class T>
struct Plane {
  const T* data;
  int64_t stride;
};

template <class T, class A = accumulate_t<T>, class P = apply_t<T>>
struct Kernels {
  void (*widen)(const T* from, A* to, int64_t n);

  // Normalises rows [begin, end).
  void (*row_forward)(const RowForward<T>&, int64_t begin, int64_t end);
  // Handles row blocks [begin, end), block b being rows [b * block_rows, (b + 1) * block_rows).
  void (*row_backward)(const RowBackward<T>&, int64_t begin, int64_t end);

  Moments (*planar_moments)(Plane<T> x, int64_t batch, int64_t length, A shift);
  // y = (x - mean) * scale + bias
  void (*planar_apply)(Plane<T> x, T* y, int64_t y_stride, int64_t batch, int64_t length, P mean,
                       P scale, P bias);
  GradientSums (*planar_gradient_sums)(Plane<T> grad_y, Plane<T> x, int64_t batch, int64_t length,
                                       A mean, A residual, A rstd);
  // grad_x = scale * (grad_y - mean_grad - ((x - mean) - residual) * mean_grad_x)
  void (*planar_gradient)(Plane<T> grad_y, Plane<T> x, T* grad_x, int64_t grad_x_stride,
                          int64_t batch, int64_t length, A mean, A residual, A scale, A mean_grad,
                          A mean_grad_x);

  // The interleaved forms of the same; per-channel numbers are arrays of length `channels`.
  // moments: mean and m2 over the rows, relative to shift, one pair per channel.
  void (*interleaved_moments)(const T* x, int64_t stride, int64_t rows, int64_t channels,
                              const A* shift, double* mean, double* m2);
  void (*interleaved_apply)(const T* x, int64_t stride, T* y, int64_t rows, int64_t channels,
                            const P* mean, const P* scale, const P* bias);
  void (*interleaved_gradient_sums)(const T* grad_y, int64_t grad_y_stride, const T* x,
                                    int64_t x_stride, int64_t rows, int64_t channels, const A* mean,
                                    const A* residual, const A* rstd, double* grad,
                                    double* grad_x_hat);
  void (*interleaved_gradient)(const T* grad_y, int64_t grad_y_stride, const T* x, int64_t x_stride,
                               T* grad_x, int64_t rows, int64_t channels, const A* mean,
                               const A* residual, const A* scale, const A* mean_grad,
                               const A* mean_grad_x);
};

// ------------------------------------------------------------------ the floor
// Memory traffic alone, for `normkit bench`. n is in floats, a multiple of 64 lest the rest be
// left out; a streamed target is aligned to 64 bytes.
struct Floor {
  void (*copy)(const float* from, float* to, int64_t n, bool stream);
  void (*triad)(const float* a, const float* b, float* to, int64_t n, bool stream);
  double (*read)(const float* a, int64_t n);
  double (*read2)(const float* a, const float* b, int64_t n);
};

const Floor& floor_kernels();

// The table for the best instruction set this CPU has, or the one NORMKIT_CPU names.
template <class T>
const Kernels<T>& kernels();

// "avx512", "avx2" or "portable".
const char* instruction_set();

}  // namespace normkit
