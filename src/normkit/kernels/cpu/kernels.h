// The interface between the operators and the SIMD bodies: plain pointers and numbers, no
// instruction-set types. Each body is compiled once per instruction set (simd/*.cpp) and chosen
// when the library is loaded (dispatch.cpp).
//
// T is the dtype of the activations, A the dtype statistics, gain and bias are held in:
// float for bfloat16, float16 and float; double for double.
#pragma once

#include <cstdint>

// What stands in a loop several times, for whole vectors and for the rest, the compiler left to
// itself makes a function, and what should be in registers goes through memory. And no instruction
// set may lend its copy of a function to another.
#define NORMKIT_INLINE __attribute__((always_inline))

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

// Where an operator's data lies, by its size: in a cache, or in memory, where what is written had
// better go straight to.
enum class Traffic { cached, streamed };

// ---------------------------------------------------------------- row norms
// A row is n adjacent elements that share statistics. Row r of x starts at x + r * x_stride; y and
// grad_x are dense. Any of gain, bias and the statistics may be null: a gain of 1, no bias,
// not centred, nothing saved.
//
// Numbers per column may lie apart, as suits a kernel: of every whole `run` of columns those of the
// even ones first, then those of the odd ones. A run of 0: in their order. Static, as split_mean
// is.
[[maybe_unused]] static int64_t place(int64_t column, int64_t n, int64_t run) {
  if (run == 0 || column >= n / run * run) return column;
  const int64_t within = column % run;
  return column - within + within / 2 + within % 2 * run / 2;
}
// The kernels' own run, or 0 for rows that are written to `to` otherwise than run by run: past the
// cache go whole lines only.
template <class T>
[[maybe_unused]] static int64_t run_for(int64_t own, const T* to, int64_t n, Traffic traffic) {
  const bool by_lines = uintptr_t(to) % 64 == 0 && n * int64_t(sizeof(T)) % 64 == 0;
  return traffic == Traffic::cached || by_lines || !to ? own : 0;
}

template <class A>
struct RowStatistics {
  A* rstd = nullptr;      // 1 / sqrt(var + eps), or 1 / (sqrt(var) + eps); below 0: needs care
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
  int64_t run;  // in which they lie apart
  RowStatistics<A> save;
  int64_t n;
  double inverse_n;
  double eps;
  bool centred;
  bool outside;
  Traffic traffic;
  // Does a row whose squares leave A's range.
  void (*careful)(const RowForward&, int64_t row);
};

// Of RowBackward: which rows of a block need care are the bits of a word.
constexpr int64_t kMostBlockRows = 64;

template <class T, class A = accumulate_t<T>>
struct RowBackward {
  const T* grad_y;
  int64_t grad_y_stride;
  const T* x;
  int64_t x_stride;
  const A* gain;
  const A* gain_for_sums;  // the same, apart by the kernels' own run
  int64_t run;             // in which gain, grad_gain and grad_bias lie apart
  RowStatistics<A> saved;
  T* grad_x;  // null: not wanted
  int64_t rows;
  int64_t n;
  int64_t block_rows;  // rows whose weight gradients are summed into one partial
  // Those sums, or null: n of each block, so far after those of the last.
  int64_t partial_stride;
  A* grad_gain;
  A* grad_bias;
  double eps;
  bool centred;
  bool outside;
  Traffic traffic;
  // Does a row where a step would leave A's range, and adds to a block's partial sums.
  void (*careful)(const RowBackward&, int64_t row, A* grad_gain, A* grad_bias);
};

// ------------------------------------------------------------ channel norms
// planar: (N, C, S) with the S positions of one plane adjacent.
// interleaved: (M, C) with the C channels of one position adjacent ("channels last").

// Sums over a channel's elements of x - shift and of its square. peak is the largest share of
// squares that was summed in float, unless every step was in double.
struct Sums {
  double sum;
  double squares;
  double peak;
};

// Whether squares summed in float are as good as summed in double: their roundings, one and a half
// units for each square, average out only where no few of them are most of the sum. Static, as
// split_mean is.
[[maybe_unused]] static bool even(double peak, double squares) { return 4 * peak <= squares; }

struct GradientSums {
  double grad;     // sum of grad_y
  double product;  // sum of grad_y * x_hat, short of what rounding the mean lost
};

// The sums of every channel, and the moments that follow; the mean is relative to the shift.
struct ChannelSums {
  double *sum, *squares, *peak;
};
struct ChannelMoments {
  double *mean, *variance;
};

// What is kept of every channel for the backward pass and the running statistics. As of rows, an
// rstd below 0 needs care.
template <class A>
struct ChannelStatistics {
  A *rstd, *mean, *residual, *var;
};

// The numbers of every channel. N is a pointer to one per channel; inside a kernel, a vector, and M
// that of the mean or a Subtrahend (vector.h).

// y = (x - mean) * (scale + scale_rest) + bias; scale_rest is what rounding the scale lost.
template <class N, class M = N>
struct Apply {
  M mean;
  N scale, scale_rest, bias;
  NORMKIT_INLINE Apply from(int64_t c) const {
    return {mean + c, scale + c, scale_rest + c, bias + c};
  }
};

// x_hat = (x - mean) * rstd, but for what rounding the mean lost: the sums make up for it.
template <class N, class M = N>
struct Hat {
  M mean;
  N rstd;
  NORMKIT_INLINE Hat from(int64_t c) const { return {mean + c, rstd + c}; }
};

// grad_x = grad_y * scale + (x - mean) * pull + shift
template <class N, class M = N>
struct Gradient {
  M mean;
  N scale, pull, shift;
  NORMKIT_INLINE Gradient from(int64_t c) const {
    return {mean + c, scale + c, pull + c, shift + c};
  }
};

// Where the statistics are constants: grad_x = grad_y * (scale + scale_rest), whatever x is.
template <class N, class M = N>
struct FixedGradient {
  Hat<N, M> hat;
  N scale, scale_rest;
  NORMKIT_INLINE FixedGradient from(int64_t c) const {
    return {hat.from(c), scale + c, scale_rest + c};
  }
};

// What the numbers a channel is normalised with are made of. No weight is a weight of one.
template <class A>
struct ChannelSources {
  const A* shift;
  ChannelMoments moments;
  const A *weight, *bias;
  double eps;
};
// Where they go to. Statistics may be wanted, or be null.
template <class A>
struct ChannelNumbers {
  Apply<A*> apply;
  ChannelStatistics<A> statistics;
};

// What the numbers of a channel's gradient are made of: the forward pass's statistics, and the
// gradients of bias and weight where they are wanted or the statistics are the batch's own.
template <class A>
struct GradientSources {
  ChannelStatistics<A> statistics;
  const A* weight;
  const double *grad, *product;
  bool training, summed;
  double inverse_count;
};
// Where they go to: in training a Gradient's. Where the statistics are constants pull is what
// rounding the scale lost, and shift is 0. And what the sums make of the weight's gradient.
template <class A>
struct GradientNumbers {
  A *scale, *pull, *shift;
  double* grad_x_hat;  // sum of grad_y * x_hat
};

// Planar data, or a part of it: element (n, c, s) at data[n * stride_n + c * stride_c + s].
template <class T>
struct Planes {
  T* data;
  int64_t stride_n, stride_c;
  NORMKIT_INLINE T* at(int64_t n, int64_t c) const { return data + n * stride_n + c * stride_c; }
};
struct Box {
  int64_t batch, channels, length;
  Traffic traffic;
  int64_t ahead = 0;  // what comes next lies so many channels further on; 0: it is not known
};

// Interleaved data, or a part of it: element (row, c) at data[row * stride + c].
template <class T>
struct Rows {
  T* data;
  int64_t stride;
};
struct Span {
  int64_t rows, channels;
  Traffic traffic;
};

template <class T, class A = accumulate_t<T>>
struct Kernels {
  int64_t run;  // in which row kernels of T do best with numbers apart
  void (*widen)(const T* from, A* to, int64_t n, bool apart);
  bool (*all_finite)(const T* x, int64_t n);
  // total[i] = the sum of `count` partials at i, each `stride` after the last, in their order.
  // apart: that of the partials; a total's is the columns'.
  void (*add_partials)(const A* partials, int64_t count, int64_t stride, int64_t n, bool apart,
                       double* total);

  // Normalises rows [begin, end).
  void (*row_forward)(const RowForward<T>&, int64_t begin, int64_t end);
  // Handles row blocks [begin, end), block b being rows [b * block_rows, (b + 1) * block_rows).
  void (*row_backward)(const RowBackward<T>&, int64_t begin, int64_t end);

  // The moments of channels [begin, end) of `count` elements each. Whether all of them can be
  // relied on: float held the squares, the shift was near enough for them not to cancel, and no few
  // of them are most of the sum. exact: every step was in double.
  bool (*channel_moments)(ChannelSums sums, double count, double eps, bool exact,
                          ChannelMoments moments, int64_t begin, int64_t end);
  // What channels [begin, end) are normalised with. Whether A holds every step of it.
  bool (*channel_numbers)(const ChannelSources<A>& from, const ChannelNumbers<A>& to, int64_t begin,
                          int64_t end);

  // What of channels [begin, end) is known before the sums of their gradient.
  void (*gradient_numbers)(const GradientSources<A>& from, const GradientNumbers<A>& to,
                           int64_t begin, int64_t end);
  // What follows from the sums. Whether A holds every step of the channels' gradients.
  bool (*gradient_pull)(const GradientSources<A>& from, const GradientNumbers<A>& to, int64_t begin,
                        int64_t end);

  // Sums are one per channel. exact: every step in double.
  void (*planar_sums)(Planes<const T> x, Box box, const A* shift, bool exact, Sums* sums);
  void (*planar_apply)(Planes<const T> x, Planes<T> y, Box box, Apply<const A*> channels);
  void (*planar_gradient_sums)(Planes<const T> grad_y, Planes<const T> x, Box box,
                               Hat<const A*> channels, GradientSums* sums);
  void (*planar_gradient)(Planes<const T> grad_y, Planes<const T> x, Planes<T> grad_x, Box box,
                          Gradient<const A*> channels);
  // The sums, and in the same sweep grad_x, which may be null.
  void (*planar_fixed_gradient)(Planes<const T> grad_y, Planes<const T> x, Planes<T> grad_x,
                                Box box, FixedGradient<const A*> channels, GradientSums* sums);

  // The interleaved forms of the same; what they write is dense.
  void (*interleaved_sums)(Rows<const T> x, Span span, const A* shift, bool exact, double* sum,
                           double* squares, double* peak);
  void (*interleaved_apply)(Rows<const T> x, T* y, Span span, Apply<const A*> channels);
  void (*interleaved_gradient_sums)(Rows<const T> grad_y, Rows<const T> x, Span span,
                                    Hat<const A*> channels, double* grad, double* product);
  void (*interleaved_gradient)(Rows<const T> grad_y, Rows<const T> x, T* grad_x, Span span,
                               Gradient<const A*> channels);
  void (*interleaved_fixed_gradient)(Rows<const T> grad_y, Rows<const T> x, T* grad_x, Span span,
                                     FixedGradient<const A*> channels, double* grad,
                                     double* product);
};

// ------------------------------------------------------------------ the floor
// Memory traffic alone, for `normkit bench`. n is in floats, a multiple of 64 lest the rest be
// left out; a streamed target is aligned to 64 bytes.
struct Floor {
  void (*copy)(const float* from, float* to, int64_t n, Traffic traffic);
  void (*triad)(const float* a, const float* b, float* to, int64_t n, Traffic traffic);
  double (*read)(const float* a, int64_t n);
  double (*read2)(const float* a, const float* b, int64_t n);
};

const Floor& floor_kernels();

// The table for the best instruction set this CPU has, or the one NORMKIT_CPU names.
template <class T>
const Kernels<T>& kernels();

// "avx512bf16", "avx512", "avx2" or "portable".
const char* instruction_set();
int64_t vector_bytes();

}  // namespace normkit
