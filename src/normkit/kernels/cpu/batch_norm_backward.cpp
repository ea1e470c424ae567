// BatchNorm backward, for training and for given statistics.
#include <atomic>

#include "batch_norm.h"
#include "careful.h"
#include "entries.h"

namespace normkit {
namespace {

// In training grad_x = gain * rstd * (grad_y - mean(grad_y) - x_hat * mean(grad_y * x_hat)). Where
// the statistics are constants it is gain * rstd * grad_y, whatever x is.
template <class T, class A = accumulate_t<T>>
class Backward {
 public:
  Backward(const Tensor& statistics, const Vector<A>& weight, int64_t channels, bool training,
           bool sums_wanted, double count)
      : sums_(channels),
        numbers_(channels),
        from_{statistics_of<A>(statistics, channels),
              weight.get(),
              sums_[0],
              sums_[1],
              training,
              training || sums_wanted,
              1.0 / count},
        to_{numbers_[0], numbers_[1], numbers_[2], sums_[2]} {
    for (int s = 0; s < 3; ++s) std::fill_n(sums_[s], channels, 0.0);  // of no elements
    kernels<T>().gradient_numbers(from_, to_, 0, channels);
  }

  double* grad() const { return sums_[0]; }        // of the bias
  double* product() const { return sums_[1]; }     // as GradientSums
  double* grad_x_hat() const { return sums_[2]; }  // of the weight

  bool training() const { return from_.training; }
  bool summed() const { return from_.summed; }
  Gradient<const A*> gradient() const {
    return {from_.statistics.mean, to_.scale, to_.pull, to_.shift};
  }
  Hat<const A*> hat() const { return {from_.statistics.mean, from_.statistics.rstd}; }
  // Where the statistics are constants: with the sums, and without.
  FixedGradient<const A*> fixed() const { return {hat(), to_.scale, to_.pull}; }
  Apply<const A*> constant() const { return {to_.shift, to_.scale, to_.pull, to_.shift}; }

  // What the sums of channels [begin, end) make of their gradient.
  void set(int64_t begin, int64_t end) {
    if (!kernels<T>().gradient_pull(from_, to_, begin, end)) beyond_range_ = true;
  }

  // Once more, for the channels where a step left A's range though no element is beyond it.
  void redo_beyond_range(const Layout& g, const Layout& in, T* grad_x, double eps) {
    for (int64_t c = 0; beyond_range_ && c < in.channels; ++c)
      if (!kernels<T>().gradient_pull(from_, to_, c, c + 1)) redo(g, in, grad_x, eps, c);
  }

 private:
  PerChannel<double, 3> sums_;
  PerChannel<A, 3> numbers_;
  GradientSources<A> from_;
  GradientNumbers<A> to_;
  std::atomic<bool> beyond_range_ = false;

  void redo(const Layout& g, const Layout& in, T* grad_x, double eps, int64_t c) {
    const ChannelStatistics<A>& s = from_.statistics;
    if (std::isnan(s.rstd[c])) return;
    const auto x = channel<T>(in, c), grad_y = channel<T>(g, c);
    const int64_t n = in.rows();
    const bool finite = careful::all_finite(n, grad_y) && careful::all_finite(n, x);
    if (!finite && s.rstd[c] >= 0) return;  // below 0, the kernels' has the wrong sign
    const auto group = training()
                           ? careful::measured(n, x, {eps})
                           : careful::given(n, x, double(s.mean[c]) + s.residual[c], s.var[c], eps);
    const double gain = from_.weight ? double(from_.weight[c]) : 1.0;
    if (grad_x) {
      const auto out = channel(grad_x, in, c);
      careful::differentiate(
          group, !training(), true, n, grad_y, x, [&](int64_t) { return gain; },
          [&](int64_t i, double v) { set_element(out.at(i), v); });
    }
    grad()[c] = careful::total(n, grad_y, [](int64_t) { return 1.0; });
    grad_x_hat()[c] =
        std::ldexp(careful::total(n, grad_y, [&](int64_t i) { return group.scaled_x_hat(x(i)); }),
                   group.hat_exponent());
  }
};

// In training the input's gradient waits for a channel's sums; with given statistics it is made
// piece by piece, while a piece is summed.
template <class T, class A = accumulate_t<T>>
void backward_planar(const Layout& g, const Layout& in, T* grad_x, Backward<T>& to) {
  const auto& k = kernels<T>();
  // With given statistics nothing is read twice: no group need stay in a cache.
  const int64_t group = to.training() ? group_of(in, 2) : share_of(in);
  const int64_t run = std::min(in.run(group), g.run(group));
  const Chunks chunks(in, group, traffic(3 * in.bytes(), run), kTwoPasses);
  const int64_t C = in.channels;
  std::vector<GradientSums> partial(C * chunks.count);
  by_channels(
      chunks, [](int64_t, int64_t) {},
      [&](int64_t i, const Part& p) {
        const Planes<T> out = grad_x ? planes(grad_x, chunks, p) : Planes<T>{};
        if (to.training())
          k.planar_gradient_sums(planes<T>(g, p), planes<T>(in, p), p.box, to.hat().from(p.c),
                                 &partial[i * C + p.c]);
        else if (to.summed())
          k.planar_fixed_gradient(planes<T>(g, p), planes<T>(in, p), out, p.box,
                                  to.fixed().from(p.c), &partial[i * C + p.c]);
        else if (grad_x)
          k.planar_apply(planes<T>(g, p), out, p.box, to.constant().from(p.c));
      },
      [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          for (int64_t i = 0; i < chunks.count; ++i) {
            to.grad()[c] += partial[i * C + c].grad;
            to.product()[c] += partial[i * C + c].product;
          }
        }
        to.set(begin, end);
      },
      [&](const Part& p) {
        if (grad_x && to.training())
          k.planar_gradient(planes<T>(g, p), planes<T>(in, p), planes(grad_x, chunks, p), p.box,
                            to.gradient().from(p.c));
      });
}

template <class T, class A = accumulate_t<T>>
void backward_interleaved(const Layout& g, const Layout& in, T* grad_x, Backward<T>& to) {
  const auto& k = kernels<T>();
  const int64_t C = in.channels;
  const Blocks blocks(in, traffic(3 * in.bytes(), in.run(1)), kTwoPasses);
  PerChannel<double, 2> partial(blocks.count * C);
  blocks.forwards([&](int64_t b, int64_t first, const Span& span) {
    T* out = grad_x ? grad_x + first * C : nullptr;
    if (to.training())
      k.interleaved_gradient_sums(rows<T>(g, first), rows<T>(in, first), span, to.hat(),
                                  partial[0] + b * C, partial[1] + b * C);
    else if (to.summed())
      k.interleaved_fixed_gradient(rows<T>(g, first), rows<T>(in, first), out, span, to.fixed(),
                                   partial[0] + b * C, partial[1] + b * C);
    else if (grad_x)
      k.interleaved_apply(rows<T>(g, first), out, span, to.constant());
  });
  if (to.summed())
    parallel(C, 2 * blocks.count, [&](int64_t begin, int64_t end) {
      double* const sums[] = {to.grad(), to.product()};
      for (int s = 0; s < 2; ++s)
        kernels<double>().add_partials(partial[s] + begin, blocks.count, C, end - begin, false,
                                       sums[s] + begin);
    });
  for_channels(C, [&](int64_t begin, int64_t end) { to.set(begin, end); });
  if (!grad_x || !to.training()) return;
  blocks.backwards([&](int64_t, int64_t first, const Span& span) {
    k.interleaved_gradient(rows<T>(g, first), rows<T>(in, first), grad_x + first * C, span,
                           to.gradient());
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
    Backward<T> to(saved.get(), gain, in.channels, training, weight_wanted || bias_wanted,
                   double(in.rows()));
    T* out = input_grad ? std::get<0>(result).template mutable_data<T>() : nullptr;
    if (x.numel() > 0) {
      in.interleaved ? backward_interleaved<T>(g, in, out, to) : backward_planar<T>(g, in, out, to);
      to.redo_beyond_range(g, in, out, eps);
    }
    if (weight_wanted) std::get<1>(result) = sums_like(weight, in.channels, to.grad_x_hat());
    if (bias_wanted) std::get<2>(result) = sums_like(bias, in.channels, to.grad());
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("batch_norm_bwd", &Boxed<batch_norm_bwd>::call);
}

void add_batch_norm_backward(Entries& to) { to.batch_norm_bwd = &Direct<batch_norm_bwd>::call; }

}  // namespace normkit
