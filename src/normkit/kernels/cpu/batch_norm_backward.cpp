// BatchNorm backward, for training and for given statistics.
#include "batch_norm.h"
#include "careful.h"

namespace normkit {
namespace {

// In training grad_x = gain * rstd * (grad_y - mean(grad_y) - x_hat * mean(grad_y * x_hat)). Where
// the statistics are constants it is gain * rstd * grad_y, whatever x is.
template <class A>
struct Backward {
  ChannelStatistics<A> stats;
  const A* weight;
  PerChannel<A, 4> numbers;
  PerChannel<double, 2> sums;  // the gradients of bias and weight
  Gradient<const A*> channels;
  Apply<const A*> constant;
  bool training, sums_wanted;
  double inverse_count;

  Backward(const Tensor& statistics, const Vector<A>& weight, int64_t channels, bool training,
           bool sums_wanted, double count)
      : stats(statistics_of<A>(statistics, channels)),
        weight(weight.get()),
        numbers(channels),
        sums(channels),
        channels{{stats.mean, stats.rstd, numbers[0]}, numbers[1], numbers[2], numbers[3]},
        constant{numbers[3], numbers[1], numbers[2], numbers[3]},
        training(training),
        sums_wanted(training || sums_wanted),
        inverse_count(1.0 / count) {
    for (int64_t c = 0; c < channels; ++c) {
      const double scale = this->scale(c);
      numbers[0][c] = A(-double(stats.residual[c]) * double(stats.rstd[c]));
      // Where it is kept in two parts, both of one sign: infinity times them is infinity.
      numbers[1][c] = A(training || sizeof(A) > sizeof(float) ? scale : scale * (1 - 0x1p-24));
      numbers[2][c] = A(scale - double(numbers[1][c]));
      numbers[3][c] = 0;
      sums[0][c] = sums[1][c] = 0;  // of no elements
    }
  }

  double scale(int64_t c) const {
    return double(stats.rstd[c]) * (weight ? double(weight[c]) : 1.0);
  }

  // What the sums of channels [begin, end) make of their gradient.
  void set(int64_t begin, int64_t end) {
    for (int64_t c = begin; training && c < end; ++c) {
      const double shared = -scale(c) * inverse_count;
      numbers[2][c] = A(shared * sums[1][c]);
      numbers[3][c] = A(shared * sums[0][c]);
    }
  }

  // Whether A holds every step of a channel's gradient.
  bool in_range(int64_t c) const {
    constexpr bool kFloat = sizeof(A) == sizeof(float);
    constexpr double kMost = kFloat ? 1e30 : 1e250, kLeast = kFloat ? 1e-25 : 1e-200;
    constexpr double kSteep = kFloat ? 0x1p60 : 0x1p400;
    const double size = std::abs(sums[0][c]) + std::abs(sums[1][c]);
    const auto large = [](double sum) { return sum == 0 || std::abs(sum) > kLeast; };
    const double rstd = stats.rstd[c], steepness = std::abs(scale(c));
    return rstd > 1 / kSteep && rstd < kSteep && std::abs(stats.mean[c]) < kMost &&
           (steepness == 0 || (steepness > 1 / kSteep && steepness < kSteep)) &&
           (!sums_wanted ||
            (size < kMost && size * steepness < kMost && large(sums[0][c]) && large(sums[1][c]))) &&
           !(training && stats.var[c] == 0 && sums[1][c] != 0);  // it varies, but A can't say so
  }
};

// Once more, for the channels where a step left A's range though no element is beyond it.
template <class T, class A = accumulate_t<T>>
void redo_beyond_range(const Layout& g, const Layout& in, T* grad_x, double eps, Backward<A>& to) {
  for (int64_t c = 0; c < in.channels; ++c) {
    if (to.in_range(c) || std::isnan(to.stats.rstd[c])) continue;
    const auto x = channel<T>(in, c), grad_y = channel<T>(g, c);
    const int64_t n = in.rows();
    const bool finite = careful::all_finite(n, grad_y) && careful::all_finite(n, x);
    if (!finite && to.stats.rstd[c] >= 0) continue;  // below 0, the kernels' has the wrong sign
    const auto& s = to.stats;
    const auto group = to.training
                           ? careful::measured(n, x, {eps})
                           : careful::given(n, x, double(s.mean[c]) + s.residual[c], s.var[c], eps);
    const double gain = to.weight ? double(to.weight[c]) : 1.0;
    if (grad_x) {
      const auto out = channel(grad_x, in, c);
      careful::differentiate(
          group, !to.training, true, n, grad_y, x, [&](int64_t) { return gain; },
          [&](int64_t i, double v) { set_element(out.at(i), v); });
    }
    to.sums[0][c] = careful::total(n, grad_y, [](int64_t) { return 1.0; });
    to.sums[1][c] =
        std::ldexp(careful::total(n, grad_y, [&](int64_t i) { return group.scaled_x_hat(x(i)); }),
                   group.hat_exponent());
  }
}

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
        if (to.sums_wanted)
          k.planar_gradient_sums(planes<T>(g, p), planes<T>(in, p), p.box,
                                 to.channels.hat.from(p.c), &partial[i * C + p.c]);
        if (grad_x && !to.training)
          k.planar_apply(planes<T>(g, p), planes(grad_x, chunks, p), p.box, to.constant.from(p.c));
      },
      [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          for (int64_t i = 0; i < chunks.count; ++i) {
            to.sums[0][c] += partial[i * C + c].grad;
            to.sums[1][c] += partial[i * C + c].grad_x_hat;
          }
        }
        to.set(begin, end);
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
  PerChannel<double, 2> partial(blocks.count * C);
  blocks.forwards([&](int64_t b, int64_t first, const Span& span) {
    if (to.sums_wanted)
      k.interleaved_gradient_sums(rows<T>(g, first), rows<T>(in, first), span, to.channels.hat,
                                  partial[0] + b * C, partial[1] + b * C);
    if (grad_x && !to.training)
      k.interleaved_apply(rows<T>(g, first), grad_x + first * C, span, to.constant);
  });
  if (to.sums_wanted)
    for (int s = 0; s < 2; ++s)
      kernels<double>().add_partials(partial[s], blocks.count, C, C, to.sums[s]);
  if (!grad_x || !to.training) return;
  for_channels(C, [&](int64_t begin, int64_t end) { to.set(begin, end); });
  blocks.backwards([&](int64_t, int64_t first, const Span& span) {
    k.interleaved_gradient(rows<T>(g, first), rows<T>(in, first), grad_x + first * C, span,
                           to.channels);
  });
}

Tensor sums_like(const Tensor* like, int64_t channels, const double* sums) {
  Tensor grad = empty(like->sizes(), like->scalar_type());
  fill(grad, channels, [&](int64_t c) { return sums[c]; });
  return grad;
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_bwd(const Tensor& grad_y, const Tensor& x,
                                                  const Tensor& statistics, const Tensor* weight,
                                                  const Tensor* bias, double eps, bool training,
                                                  bool input_grad, bool weight_grad,
                                                  bool bias_grad) {
  check_batch(x);
  check_per_channel(weight, "weight", x);
  check_per_channel(bias, "bias", x);
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(grad_y.is_cpu() && grad_y.scalar_type() == type && same_sizes(grad_y, x),
                  "normkit: grad_output must have the input's shape, dtype and device");
  const Layout in(x);
  STD_TORCH_CHECK(eps >= 0, "normkit: eps must not be negative");
  const Layout g(grad_y, in);
  std::tuple<Tensor, Tensor, Tensor> result{input_grad ? in.output(x) : none(type), none(type),
                                            none(type)};
  with_type(type, "input", [&](auto element) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    const Saved saved(statistics, scalar_type_of<A>());
    STD_TORCH_CHECK(saved.channels() == in.channels, "normkit: statistics are not the input's");
    const Vector<A> gain(weight, "weight", in.channels);
    const bool weight_wanted = weight && weight_grad, bias_wanted = bias && bias_grad;
    Backward<A> to(saved.get(), gain, in.channels, training, weight_wanted || bias_wanted,
                   double(in.rows()));
    T* out = input_grad ? std::get<0>(result).template mutable_data<T>() : nullptr;
    if (x.numel() > 0) {
      in.interleaved ? backward_interleaved<T>(g, in, out, to) : backward_planar<T>(g, in, out, to);
      redo_beyond_range<T>(g, in, out, eps, to);
    }
    if (weight_wanted) std::get<1>(result) = sums_like(weight, in.channels, to.sums[1]);
    if (bias_wanted) std::get<2>(result) = sums_like(bias, in.channels, to.sums[0]);
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("batch_norm_bwd", &Boxed<batch_norm_bwd>::call);
}

}  // namespace normkit
