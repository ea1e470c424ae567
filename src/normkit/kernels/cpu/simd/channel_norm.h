// Channel norms: BatchNorm's statistics, application and gradient, for planes of adjacent positions
// (planar) and for adjacent channels (interleaved).
#pragma once

#include "vector.h"

namespace normkit::NORMKIT_ISA {

// ----------------------------------------------------------------------- planar
// Two passes over data small enough to stay in cache: the sums of squares never cancel.
template <class T, class A = accumulate_t<T>>
Moments planar_moments(Plane<T> x, int64_t batch, int64_t length, A shift) {
  const double count = double(batch) * double(length);
  const Vec<A> shifts = broadcast(shift);
  double sum[1] = {};
  for (int64_t b = 0; b < batch; ++b) {
    const T* run = x.data + b * x.stride;
    add_sums<1, A>(length, sum, [&](int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
      out[0] = load(run + i, width) - shifts;
    });
  }
  const double mean = sum[0] / count;
  const Vec<A> centre = broadcast(A(mean));
  double deviation[2] = {};
  for (int64_t b = 0; b < batch; ++b) {
    const T* run = x.data + b * x.stride;
    add_sums<2, A>(length, deviation, [&](int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
      fetch(run + batch * x.stride + i);
      const Vec<A> d = (load(run + i, width) - shifts) - centre;
      out[0] = d;
      out[1] = d * d;
    });
  }
  // The mean was rounded to A for the second pass; what that left over mends both results.
  return {count, double(A(mean)) + deviation[0] / count,
          deviation[1] - deviation[0] * deviation[0] / count};
}

template <class T, class A = accumulate_t<T>>
void planar_apply(Plane<T> x, T* y, int64_t y_stride, int64_t batch, int64_t length, A mean,
                  A residual, A scale, A bias) {
  const Vec<A> means = broadcast(mean), residuals = broadcast(residual);
  const Vec<A> scales = broadcast(scale), biases = broadcast(bias);
  for (int64_t b = 0; b < batch; ++b) {
    const T* from = x.data + b * x.stride;
    T* to = y + b * y_stride;
    sweep<A>(0, length, [&](int, int64_t i, auto width) NORMKIT_INLINE {
      fetch_to_write(to + y_stride + i);
      store(to + i, ((load(from + i, width) - means) - residuals) * scales + biases, width);
    });
  }
}

template <class T, class A = accumulate_t<T>>
GradientSums planar_gradient_sums(Plane<T> grad_y, Plane<T> x, int64_t batch, int64_t length,
                                  A mean, A residual, A rstd) {
  const Vec<A> means = broadcast(mean), residuals = broadcast(residual), rstds = broadcast(rstd);
  double sum[2] = {};
  for (int64_t b = 0; b < batch; ++b) {
    const T* g = grad_y.data + b * grad_y.stride;
    const T* run = x.data + b * x.stride;
    add_sums<2, A>(length, sum, [&](int64_t i, auto width, Vec<A>* out) NORMKIT_INLINE {
      fetch(g + grad_y.stride + i);
      fetch(run + x.stride + i);
      out[0] = load(g + i, width);
      out[1] = out[0] * (((load(run + i, width) - means) - residuals) * rstds);
    });
  }
  return {sum[0], sum[1]};
}

template <class T, class A = accumulate_t<T>>
void planar_gradient(Plane<T> grad_y, Plane<T> x, T* grad_x, int64_t grad_x_stride, int64_t batch,
                     int64_t length, A mean, A residual, A scale, A mean_grad, A mean_grad_x) {
  const Vec<A> means = broadcast(mean), residuals = broadcast(residual);
  const Vec<A> scales = broadcast(scale), shifts = broadcast(mean_grad);
  const Vec<A> pulls = broadcast(mean_grad_x);
  for (int64_t b = 0; b < batch; ++b) {
    const T* g = grad_y.data + b * grad_y.stride;
    const T* from = x.data + b * x.stride;
    T* to = grad_x + b * grad_x_stride;
    sweep<A>(0, length, [&](int, int64_t i, auto width) NORMKIT_INLINE {
      fetch(g + grad_y.stride + i);
      fetch(from + x.stride + i);
      fetch_to_write(to + grad_x_stride + i);
      const Vec<A> d = (load(from + i, width) - means) - residuals;
      store(to + i, ((load(g + i, width) - shifts) - d * pulls) * scales, width);
    });
  }
}

// ------------------------------------------------------------------ interleaved
// Rows summed in A before the sum goes on in double, and few enough to be read twice from cache.
constexpr int64_t kRowsPerPass = 32;
constexpr int64_t kRowsAhead = 16;  // how far ahead of a single pass the next rows are fetched

// Chan's formula, for every channel of a vector: the moments of (count + n) rows out of both parts.
inline void combine(double count, double n, double part_mean, double part_m2, double* mean,
                    double* m2) {
  const double delta = part_mean - *mean;
  const double total = count + n;
  *mean += delta * (n / total);
  *m2 += part_m2 + delta * delta * (count * n / total);
}

template <class T, class A = accumulate_t<T>>
void interleaved_moments(const T* x, int64_t stride, int64_t rows, int64_t channels, const A* shift,
                         double* mean, double* m2) {
  for (int64_t c = 0; c < channels; ++c) mean[c] = m2[c] = 0;
  for (int64_t first = 0; first < rows; first += kRowsPerPass) {
    const int64_t n = rows - first < kRowsPerPass ? rows - first : kRowsPerPass;
    const T* block = x + first * stride;
    const A inverse_n = A(1) / A(n);
    sweep<A>(0, channels, [&](int, int64_t c, auto width) NORMKIT_INLINE {
      const Vec<A> shifts = load(shift + c, width);
      Vec<A> sum{}, left{}, squares{};
      for (int64_t r = 0; r < n; ++r) sum += load(block + r * stride + c, width) - shifts;
      const Vec<A> centre = sum * inverse_n;
      for (int64_t r = 0; r < n; ++r) {
        fetch(block + (r + kRowsPerPass) * stride + c);
        const Vec<A> d = (load(block + r * stride + c, width) - shifts) - centre;
        left += d;
        squares += d * d;
      }
      const int lanes = channels - c < kLanes<A> ? int(channels - c) : kLanes<A>;
      for (int lane = 0; lane < lanes; ++lane) {
        const double rest = double(left[lane]) / double(n);
        combine(double(first), double(n), double(centre[lane]) + rest,
                double(squares[lane]) - rest * rest * double(n), mean + c + lane, m2 + c + lane);
      }
    });
  }
}

template <class T, class A = accumulate_t<T>>
void interleaved_apply(const T* x, int64_t stride, T* y, int64_t rows, int64_t channels,
                       const A* mean, const A* residual, const A* scale, const A* bias) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = x + r * stride;
    T* to = y + r * channels;
    sweep<A>(0, channels, [&](int, int64_t c, auto width) NORMKIT_INLINE {
      fetch(from + kRowsAhead * stride + c);
      fetch_to_write(to + kRowsAhead * channels + c);
      const Vec<A> d = (load(from + c, width) - load(mean + c, width)) - load(residual + c, width);
      store(to + c, d * load(scale + c, width) + load(bias + c, width), width);
    });
  }
}

template <class T, class A = accumulate_t<T>>
void interleaved_gradient_sums(const T* grad_y, int64_t grad_y_stride, const T* x, int64_t x_stride,
                               int64_t rows, int64_t channels, const A* mean, const A* residual,
                               const A* rstd, double* grad, double* grad_x_hat) {
  for (int64_t c = 0; c < channels; ++c) grad[c] = grad_x_hat[c] = 0;
  for (int64_t first = 0; first < rows; first += kRowsPerPass) {
    const int64_t last = rows - first < kRowsPerPass ? rows : first + kRowsPerPass;
    sweep<A>(0, channels, [&](int, int64_t c, auto width) NORMKIT_INLINE {
      const Vec<A> means = load(mean + c, width), residuals = load(residual + c, width);
      const Vec<A> rstds = load(rstd + c, width);
      Vec<A> g_sum{}, gx_sum{};
      for (int64_t r = first; r < last; ++r) {
        fetch(grad_y + (r + kRowsPerPass) * grad_y_stride + c);
        fetch(x + (r + kRowsPerPass) * x_stride + c);
        const Vec<A> g = load(grad_y + r * grad_y_stride + c, width);
        g_sum += g;
        gx_sum += g * (((load(x + r * x_stride + c, width) - means) - residuals) * rstds);
      }
      const int lanes = channels - c < kLanes<A> ? int(channels - c) : kLanes<A>;
      for (int lane = 0; lane < lanes; ++lane) {
        grad[c + lane] += double(g_sum[lane]);
        grad_x_hat[c + lane] += double(gx_sum[lane]);
      }
    });
  }
}

template <class T, class A = accumulate_t<T>>
void interleaved_gradient(const T* grad_y, int64_t grad_y_stride, const T* x, int64_t x_stride,
                          T* grad_x, int64_t rows, int64_t channels, const A* mean,
                          const A* residual, const A* scale, const A* mean_grad,
                          const A* mean_grad_x) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* g = grad_y + r * grad_y_stride;
    const T* from = x + r * x_stride;
    T* to = grad_x + r * channels;
    sweep<A>(0, channels, [&](int, int64_t c, auto width) NORMKIT_INLINE {
      fetch(from + kRowsAhead * x_stride + c);
      fetch(g + kRowsAhead * grad_y_stride + c);
      fetch_to_write(to + kRowsAhead * channels + c);
      const Vec<A> d = (load(from + c, width) - load(mean + c, width)) - load(residual + c, width);
      const Vec<A> pulled =
          (load(g + c, width) - load(mean_grad + c, width)) - d * load(mean_grad_x + c, width);
      store(to + c, pulled * load(scale + c, width), width);
    });
  }
}

}  // namespace normkit::NORMKIT_ISA
