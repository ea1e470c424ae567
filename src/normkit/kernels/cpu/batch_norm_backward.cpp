// BatchNorm backward, for training and for given statistics.
#include "batch_norm.h"

namespace normkit {
namespace {

// grad_x = gain * rstd * (grad_y - mean(grad_y) - x_hat * mean(grad_y * x_hat)), the two means
// being zero where the statistics are constants (inference).
template <class A>
struct Gradient {
  Statistics<A> stats;
  std::vector<A> scale, mean_grad, mean_grad_x;
  std::vector<double> grad, grad_x_hat;  // their sums: the gradients of bias and weight
  bool training;
  double count;

  Gradient(const Tensor& statistics, const Vector<A>& weight, int64_t channels, bool training,
           double count)
      : stats(statistics, channels),
        scale(channels),
        mean_grad(channels),
        mean_grad_x(channels),
        grad(channels),
        grad_x_hat(channels),
        training(training),
        count(count) {
    for (int64_t c = 0; c < channels; ++c)
      scale[c] = weight.get() ? stats.rstd[c] * weight.get()[c] : stats.rstd[c];
  }

  void set(int64_t c, double sum, double sum_x_hat) {
    grad[c] = sum;
    grad_x_hat[c] = sum_x_hat;
    if (!training) return;
    mean_grad[c] = A(sum / count);
    mean_grad_x[c] = A(sum_x_hat / count * double(stats.rstd[c]));
  }
};

template <class T, class A = accumulate_t<T>>
void backward_planar(const Layout& g, const Layout& in, T* grad_x, Gradient<A>& to) {
  const auto& k = kernels<T>();
  const Chunks chunks(in.batch, in.positions);
  const T *x = in.tensor->template data<T>(), *grad_y = g.tensor->template data<T>();
  std::vector<GradientSums> partial(in.channels * chunks.count);
  by_channel(
      in.channels, chunks,
      [&](int64_t c, int64_t i) {
        partial[c * chunks.count + i] =
            chunks.at(i, [&](int64_t plane, int64_t planes, int64_t offset, int64_t length) {
              return k.planar_gradient_sums(
                  {grad_y + plane * g.stride_n + c * g.stride_c + offset, g.stride_n},
                  {x + plane * in.stride_n + c * in.stride_c + offset, in.stride_n}, planes, length,
                  to.stats.mean[c], to.stats.residual[c], to.stats.rstd[c]);
            });
      },
      [&](int64_t c) {
        GradientSums s{};
        for (int64_t i = 0; i < chunks.count; ++i) {
          s.grad += partial[c * chunks.count + i].grad;
          s.grad_x_hat += partial[c * chunks.count + i].grad_x_hat;
        }
        to.set(c, s.grad, s.grad_x_hat);
      },
      [&](int64_t c, int64_t begin, int64_t end) {
        if (!grad_x) return;
        const int64_t plane = in.channels * in.positions;
        k.planar_gradient({grad_y + begin * g.stride_n + c * g.stride_c, g.stride_n},
                          {x + begin * in.stride_n + c * in.stride_c, in.stride_n},
                          grad_x + begin * plane + c * in.positions, plane, end - begin,
                          in.positions, to.stats.mean[c], to.stats.residual[c], to.scale[c],
                          to.mean_grad[c], to.mean_grad_x[c]);
      });
}

template <class T, class A = accumulate_t<T>>
void backward_interleaved(const Layout& g, const Layout& in, T* grad_x, Gradient<A>& to) {
  const auto& k = kernels<T>();
  const T *x = in.tensor->template data<T>(), *grad_y = g.tensor->template data<T>();
  const int64_t C = in.channels, rows = in.rows(), per_block = block_rows(rows);
  const int64_t blocks = (rows + per_block - 1) / per_block;
  std::vector<double> grad(blocks * C), grad_x_hat(blocks * C);
  by_rows(rows, per_block, C, [&](int64_t b, int64_t first, int64_t n) {
    k.interleaved_gradient_sums(grad_y + first * g.stride_row, g.stride_row,
                                x + first * in.stride_row, in.stride_row, n, C, to.stats.mean,
                                to.stats.residual, to.stats.rstd, &grad[b * C], &grad_x_hat[b * C]);
  });
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0, sum_x_hat = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      sum += grad[b * C + c];
      sum_x_hat += grad_x_hat[b * C + c];
    }
    to.set(c, sum, sum_x_hat);
  }
  if (!grad_x) return;
  parallel(rows, C, [&](int64_t begin, int64_t end) {
    k.interleaved_gradient(grad_y + begin * g.stride_row, g.stride_row, x + begin * in.stride_row,
                           in.stride_row, grad_x + begin * C, end - begin, C, to.stats.mean,
                           to.stats.residual, to.scale.data(), to.mean_grad.data(),
                           to.mean_grad_x.data());
  });
}

Tensor sums_like(const Tensor* like, const std::vector<double>& sums) {
  Tensor grad = empty(like->sizes(), like->scalar_type());
  fill(grad, int64_t(sums.size()), [&](int64_t i) { return sums[i]; });
  return grad;
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_bwd(const Tensor& grad_y, const Tensor& x,
                                                  const Tensor& statistics, const Tensor* weight,
                                                  const Tensor* bias, bool training,
                                                  bool input_grad, bool weight_grad,
                                                  bool bias_grad) {
  check_batch(x);
  check_per_channel(weight, "weight", x);
  check_per_channel(bias, "bias", x);
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(grad_y.is_cpu() && grad_y.scalar_type() == type && same_sizes(grad_y, x),
                  "normkit: grad_output must have the input's shape, dtype and device");
  const Layout in(x);
  const Layout g(grad_y, in);
  std::tuple<Tensor, Tensor, Tensor> result{input_grad ? in.output(x) : none(type), none(type),
                                            none(type)};
  with_type(type, "input", [&](auto element) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    const Saved saved(statistics, scalar_type_of<A>());
    STD_TORCH_CHECK(saved.channels() == in.channels, "normkit: statistics are not the input's");
    const Vector<A> gain(weight, "weight", in.channels);
    Gradient<A> to(saved.get(), gain, in.channels, training, double(in.rows()));
    T* out = input_grad ? std::get<0>(result).template mutable_data<T>() : nullptr;
    if (x.numel() > 0 && in.interleaved) backward_interleaved<T>(g, in, out, to);
    if (x.numel() > 0 && !in.interleaved) backward_planar<T>(g, in, out, to);
    if (weight_grad && weight) std::get<1>(result) = sums_like(weight, to.grad_x_hat);
    if (bias_grad && bias) std::get<2>(result) = sums_like(bias, to.grad);
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("batch_norm_bwd", &Boxed<batch_norm_bwd>::call);
}

}  // namespace normkit
