// BatchNorm backward, for training and for given statistics.
#include "batch_norm.h"

namespace normkit {
namespace {

// In training grad_x = gain * rstd * (grad_y - mean(grad_y) - x_hat * mean(grad_y * x_hat)). Where
// the statistics are constants it is gain * rstd * grad_y, whatever x is.
template <class A>
struct Backward {
  Statistics<A> stats;
  const A* weight;
  PerChannel<A, 4> numbers;
  Gradient<const A*> channels;
  Apply<const A*> constant;
  std::vector<double> grad, grad_x_hat;  // sums: the gradients of bias and weight
  bool training;
  double count;

  Backward(const Tensor& statistics, const Vector<A>& weight, int64_t channels, bool training,
           double count)
      : stats(statistics, channels),
        weight(weight.get()),
        numbers(channels),
        channels{{stats.mean, stats.rstd, numbers[0]}, numbers[1], numbers[2], numbers[3]},
        constant{numbers[3], numbers[1], numbers[2], numbers[3]},
        grad(channels),
        grad_x_hat(channels),
        training(training),
        count(count) {
    for (int64_t c = 0; c < channels; ++c)
      numbers[0][c] = A(-double(stats.residual[c]) * double(stats.rstd[c]));
    for (int64_t c = 0; !training && c < channels; ++c) set(c, 0, 0);
  }

  void set(int64_t c, double sum, double sum_x_hat) {
    const double scale = double(stats.rstd[c]) * (weight ? double(weight[c]) : 1.0);
    grad[c] = sum;
    grad_x_hat[c] = sum_x_hat;
    if (training) {
      numbers[1][c] = A(scale);
      numbers[2][c] = A(-scale * sum_x_hat / count);
      numbers[3][c] = A(-scale * sum / count);
    } else {
      std::tie(numbers[1][c], numbers[2][c]) = split_scale<A>(scale);
      numbers[3][c] = 0;
    }
  }
};

// In training the input's gradient waits for a channel's sums; with given statistics it is made
// piece by piece while the piece is in cache.
template <class T, class A = accumulate_t<T>>
void backward_planar(const Layout& g, const Layout& in, T* grad_x, Backward<A>& to) {
  const auto& k = kernels<T>();
  const Chunks chunks(in, traffic(3 * in.bytes()));
  const int64_t C = in.channels;
  std::vector<GradientSums> partial(C * chunks.count);
  by_channels(
      chunks, 2 * sizeof(T), [](int64_t) {},
      [&](int64_t i, const Part& p) {
        k.planar_gradient_sums(planes<T>(g, p), planes<T>(in, p), p.box, to.channels.hat.from(p.c),
                               &partial[i * C + p.c]);
        if (grad_x && !to.training)
          k.planar_apply(planes<T>(g, p), planes(grad_x, chunks, p), p.box, to.constant.from(p.c));
      },
      [&](int64_t c) {
        GradientSums s{};
        for (int64_t i = 0; i < chunks.count; ++i) {
          s.grad += partial[i * C + c].grad;
          s.grad_x_hat += partial[i * C + c].grad_x_hat;
        }
        to.set(c, s.grad, s.grad_x_hat);
      },
      [&](const Part& p) {
        if (grad_x && to.training)
          k.planar_gradient(planes<T>(g, p), planes<T>(in, p), planes(grad_x, chunks, p), p.box,
                            to.channels.from(p.c));
      });
}

template <class T, class A = accumulate_t<T>>
void backward_interleaved(const Layout& g, const Layout& in, T* grad_x, Backward<A>& to) {
  const auto& k = kernels<T>();
  const int64_t C = in.channels;
  const Blocks blocks(in, traffic(3 * in.bytes()));
  std::vector<double> partial(2 * blocks.count * C), total(2 * C);
  double* partial_x_hat = &partial[blocks.count * C];
  blocks.forwards([&](int64_t b, int64_t first, const Span& span) {
    k.interleaved_gradient_sums(rows<T>(g, first), rows<T>(in, first), span, to.channels.hat,
                                &partial[b * C], partial_x_hat + b * C);
    if (grad_x && !to.training)
      k.interleaved_apply(rows<T>(g, first), grad_x + first * C, span, to.constant);
  });
  kernels<double>().add_partials(partial.data(), blocks.count, C, C, &total[0]);
  kernels<double>().add_partials(partial_x_hat, blocks.count, C, C, &total[C]);
  for_channels(C, [&](int64_t c) { to.set(c, total[c], total[C + c]); });
  if (!grad_x || !to.training) return;
  blocks.backwards([&](int64_t, int64_t first, const Span& span) {
    k.interleaved_gradient(rows<T>(g, first), rows<T>(in, first), grad_x + first * C, span,
                           to.channels);
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
    Backward<A> to(saved.get(), gain, in.channels, training, double(in.rows()));
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
