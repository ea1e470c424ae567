// Channel norms: BatchNorm's statistics, application and gradient, for planes of adjacent positions
// (planar) and for adjacent channels (interleaved).
#pragma once

#include "vector.h"

namespace normkit::NORMKIT_ISA {

// ----------------------------------------------------------------------- planar
// Two passes over data small enough to stay in cache: the sums of squares never cancel.
template <class T, class A = accumulate_t<T>>
Moments planar_moments(Plane<T> x, int64_t batch, int64_t length, A shift) {
  using P =
      apply_t<T>;  // a channel may have only a few elements: their squares are summed in double
  const double count = double(batch) * double(length);
  const Vec<P> shifts = broadcast(P(shift));
  double sum[1] = {};
  for (int64_t b = 0; b < batch; ++b) {
    const T* run = x.data + b * x.stride;
    add_sums<1, P>(length, sum, [&](int64_t i, auto width, Vec<P>* out) NORMKIT_INLINE {
      out[0] = load_as<P>(run + i, width) - shifts;
    });
  }
  const Vec<P> centre = broadcast(P(sum[0] / count));
  double deviation[2] = {};
  for (int64_t b = 0; b < batch; ++b) {
    const T* run = x.data + b * x.stride;
    add_sums<2, P>(length, deviation, [&](int64_t i, auto width, Vec<P>* out) NORMKIT_INLINE {
      fetch(run + batch * x.stride + i);
      const Vec<P> d = (load_as<P>(run + i, width) - shifts) - centre;
      out[0] = d;
      out[1] = d * d;
    });
  }
  // The mean was rounded to P for the second pass; what that left over mends both results.
  const double rest = deviation[0] / count;
  return {count, double(P(sum[0] / count)) + rest, deviation[1] - deviation[0] * rest};
}

template <class T, class P = apply_t<T>>
void planar_apply(Plane<T> x, T* y, int64_t y_stride, int64_t batch, int64_t length, P mean,
                  P scale, P bias) {
  const Vec<P> means = broadcast(mean), scales = broadcast(scale), biases = broadcast(bias);
  for (int64_t b = 0; b < batch; ++b) {
    const T* from = x.data + b * x.stride;
    T* to = y + b * y_stride;
    sweep<P>(0, length, [&](int, int64_t i, auto width) NORMKIT_INLINE {
      fetch_to_write(to + y_stride + i);
      store(to + i, (load_as<P>(from + i, width) - means) * scales + biases, width);
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
// Rows handled together: few enough to be read twice from cache, and enough for a channel's numbers
// to be loaded once for many of them.
constexpr int64_t kRowsPerPass = 32;
constexpr int64_t kRowsAhead = 16;  // how far ahead of a single pass the next rows are fetched

// body(first, last) for the rows of every pass.
template <class Body>
NORMKIT_INLINE inline void passes(int64_t rows, Body&& body) {
  for (int64_t first = 0; first < rows; first += kRowsPerPass)
    body(first, rows - first < kRowsPerPass ? rows : first + kRowsPerPass);
}

template <class A>
inline int lanes_at(int64_t channels, int64_t c) {
  return channels - c < kLanes<A> ? int(channels - c) : kLanes<A>;
}

template <class T, class A = accumulate_t<T>>
void interleaved_moments(const T* x, int64_t stride, int64_t rows, int64_t channels, const A* shift,
                         double* mean, double* m2) {
  using P = apply_t<T>;  // a channel may have only a few rows: their squares are summed in double
  for (int64_t c = 0; c < channels; ++c) mean[c] = m2[c] = 0;
  passes(rows, [&](int64_t first, int64_t last) NORMKIT_INLINE {
    const double n = double(last - first), total = double(last);
    // Chan's formula for the rows so far and these n; the two shares are the same for all channels.
    const double share = n / total, weight = double(first) * share;
    const P inverse_n = P(1) / P(last - first);
    sweep<P>(0, channels, [&](int, int64_t c, auto width) NORMKIT_INLINE {
      const Vec<P> shifts = load_as<P>(shift + c, width);
      Vec<P> sum{}, left{},
          squares{};  // left: the deviations' sum, what rounding the mean left over
      for (int64_t r = first; r < last; ++r) sum += load_as<P>(x + r * stride + c, width) - shifts;
      const Vec<P> centre = sum * inverse_n;
      for (int64_t r = first; r < last; ++r) {
        fetch(x + (r + kRowsPerPass) * stride + c);
        const Vec<P> d = (load_as<P>(x + r * stride + c, width) - shifts) - centre;
        left += d;
        squares += d * d;
      }
      for (int lane = 0; lane < lanes_at<P>(channels, c); ++lane) {
        const double rest = double(left[lane]) / n;
        const double delta = double(centre[lane]) + rest - mean[c + lane];
        mean[c + lane] += delta * share;
        m2[c + lane] += (double(squares[lane]) - rest * rest * n) + delta * delta * weight;
      }
    });
  });
}

template <class T, class P = apply_t<T>>
void interleaved_apply(const T* x, int64_t stride, T* y, int64_t rows, int64_t channels,
                       const P* mean, const P* scale, const P* bias) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = x + r * stride;
    T* to = y + r * channels;
    sweep<P>(0, channels, [&](int, int64_t c, auto width) NORMKIT_INLINE {
      fetch(from + kRowsAhead * stride + c);
      fetch_to_write(to + kRowsAhead * channels + c);
      const Vec<P> d = load_as<P>(from + c, width) - load(mean + c, width);
      store(to + c, d * load(scale + c, width) + load(bias + c, width), width);
    });
  }
}

template <class T, class A = accumulate_t<T>>
void interleaved_gradient_sums(const T* grad_y, int64_t grad_y_stride, const T* x, int64_t x_stride,
                               int64_t rows, int64_t channels, const A* mean, const A* residual,
                               const A* rstd, double* grad, double* grad_x_hat) {
  for (int64_t c = 0; c < channels; ++c) grad[c] = grad_x_hat[c] = 0;
  passes(rows, [&](int64_t first, int64_t last) NORMKIT_INLINE {
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
      for (int lane = 0; lane < lanes_at<A>(channels, c); ++lane) {
        grad[c + lane] += double(g_sum[lane]);
        grad_x_hat[c + lane] += double(gx_sum[lane]);
      }
    });
  });
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
