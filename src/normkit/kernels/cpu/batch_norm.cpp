// The BatchNorm operators: statistics and apply in training, apply alone in inference, the gradient
// of both, and the update of the running statistics.
//
// statistics is (4, C) in the accumulation dtype: rstd, mean, residual, biased variance.
#include <cmath>

#include "layout.h"
#include "tensors.h"

namespace normkit {
namespace {

// Elements of one channel that are summed before the sum goes on in double; they stay in cache for
// the second pass over them.
constexpr int64_t kChunk = 4096;
// At most this many partial sums over the rows of interleaved data. Both numbers depend on the
// shape alone, so results do not depend on the number of threads.
constexpr int64_t kMinBlockRows = 64;
constexpr int64_t kMaxBlocks = 128;

// Chan, Golub & LeVeque (1979): the moments of two parts together.
void combine(Moments& a, const Moments& b) {
  const double count = a.count + b.count;
  const double delta = b.mean - a.mean;
  a.mean += delta * (b.count / count);
  a.m2 += b.m2 + delta * delta * (a.count * b.count / count);
  a.count = count;
}

// A channel of planar data in pieces: several whole planes, or part of one.
struct Chunks {
  int64_t batch, positions, planes, pieces, count;

  Chunks(int64_t batch, int64_t positions) : batch(batch), positions(positions) {
    planes = std::max<int64_t>(1, kChunk / positions);
    pieces = (positions + kChunk - 1) / kChunk;
    count = (batch + planes - 1) / planes * pieces;
  }

  // f(plane, planes, offset, length) for piece i.
  template <class F> auto at(int64_t i, const F& f) const {
    const int64_t plane = i / pieces * planes, offset = i % pieces * kChunk;
    return f(plane, std::min(planes, batch - plane), offset, std::min(kChunk, positions - offset));
  }
};

// Stages of a training step, channel by channel where there are channels enough for all threads
// (a channel's data is then still in cache for `second`), else chunk by chunk. `first` leaves a
// partial result for (channel, chunk) and `join` adds a channel's partials in their order, so both
// ways give the same bits.
template <class First, class Join, class Second>
void by_channel(int64_t channels, const Chunks& chunks, const First& first, const Join& join,
                const Second& second) {
  const int64_t cost = chunks.batch * chunks.positions;
  if (channels >= int64_t(torch::stable::get_num_threads())) {
    return parallel(channels, cost, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t i = 0; i < chunks.count; ++i) first(c, i);
        join(c);
        second(c, 0, chunks.batch);
      }
    });
  }
  parallel(channels * chunks.count, cost / std::max<int64_t>(1, chunks.count),
           [&](int64_t begin, int64_t end) {
             for (int64_t i = begin; i < end; ++i) first(i / chunks.count, i % chunks.count);
           });
  for (int64_t c = 0; c < channels; ++c) join(c);
  parallel(channels * chunks.batch, chunks.positions, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      second(i / chunks.batch, i % chunks.batch, i % chunks.batch + 1);
  });
}

// The rows of interleaved data in blocks; f(block, first row, rows).
template <class F> void by_rows(int64_t rows, int64_t block_rows, int64_t channels, const F& f) {
  const int64_t blocks = (rows + block_rows - 1) / block_rows;
  parallel(blocks, block_rows * channels, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      f(b, b * block_rows, std::min(block_rows, rows - b * block_rows));
  });
}

int64_t block_rows(int64_t rows) {
  return std::max(kMinBlockRows, (rows + kMaxBlocks - 1) / kMaxBlocks);
}

// What an application needs of each channel, in the accumulation dtype.
template <class A> struct PerChannel {
  const A* gain;
  const A* shift;
  std::vector<A> scale, bias;

  PerChannel(const Vector<A>& weight, const Vector<A>& bias, int64_t channels)
      : gain(weight.get()), shift(bias.get()), scale(channels), bias(channels) {}

  void set(int64_t c, double rstd) {
    scale[c] = A(rstd * (gain ? double(gain[c]) : 1.0));
    bias[c] = shift ? shift[c] : A(0);
  }
};

template <class A> struct Statistics {
  A *rstd, *mean, *residual, *var;

  Statistics(const Tensor& t, int64_t channels)
      : rstd(t.template mutable_data<A>()), mean(rstd + channels), residual(mean + channels),
        var(residual + channels) {}

  // shift + m.mean is the mean: kept as its rounding to A and what that lost (Knuth's two-sum).
  void set(int64_t c, A shift, const Moments& m, double rstd_c) {
    const double sum = double(shift) + m.mean, tail = sum - double(shift);
    const double lost = (double(shift) - (sum - tail)) + (m.mean - tail);
    mean[c] = A(sum);
    residual[c] = A((sum - double(mean[c])) + lost);
    var[c] = A(m.m2 / m.count);
    rstd[c] = A(rstd_c);
  }
};

void check_batch(const Tensor& x) {
  STD_TORCH_CHECK(x.is_cpu(), "normkit: input must be on the CPU");
  STD_TORCH_CHECK(x.dim() >= 2, "normkit: input must have at least 2 dimensions");
}

double rstd_of(const Moments& m, double eps) { return 1.0 / std::sqrt(m.m2 / m.count + eps); }

template <class T, class A = accumulate_t<T>>
void train_planar(const Layout& in, const Tensor& y, double eps, Statistics<A> stats,
                  PerChannel<A>& channel) {
  const auto& k = kernels<T>();
  const Chunks chunks(in.batch, in.positions);
  const T* x = in.tensor->template data<T>();
  T* out = y.template mutable_data<T>();
  std::vector<Moments> partial(in.channels * chunks.count);
  const auto shift = [&](int64_t c) { return first_element<T>(x + c * in.stride_c); };
  by_channel(
      in.channels, chunks,
      [&](int64_t c, int64_t i) {
        partial[c * chunks.count + i] =
            chunks.at(i, [&](int64_t plane, int64_t planes, int64_t offset, int64_t length) {
              const T* from = x + plane * in.stride_n + c * in.stride_c + offset;
              return k.planar_moments({from, in.stride_n}, planes, length, shift(c));
            });
      },
      [&](int64_t c) {
        Moments m = partial[c * chunks.count];
        for (int64_t i = 1; i < chunks.count; ++i) combine(m, partial[c * chunks.count + i]);
        const double rstd = rstd_of(m, eps);
        stats.set(c, shift(c), m, rstd);
        channel.set(c, rstd);
      },
      [&](int64_t c, int64_t begin, int64_t end) {
        const int64_t plane = in.channels * in.positions;
        k.planar_apply({x + begin * in.stride_n + c * in.stride_c, in.stride_n},
                       out + begin * plane + c * in.positions, plane, end - begin, in.positions,
                       stats.mean[c], stats.residual[c], channel.scale[c], channel.bias[c]);
      });
}

template <class T, class A = accumulate_t<T>>
void apply_interleaved(const Layout& in, const Tensor& y, const A* mean, const A* residual,
                       const PerChannel<A>& channel) {
  const auto& k = kernels<T>();
  const T* x = in.tensor->template data<T>();
  T* out = y.template mutable_data<T>();
  parallel(in.rows(), in.channels, [&](int64_t begin, int64_t end) {
    k.interleaved_apply(x + begin * in.stride_row, in.stride_row, out + begin * in.channels,
                        end - begin, in.channels, mean, residual, channel.scale.data(),
                        channel.bias.data());
  });
}

template <class T, class A = accumulate_t<T>>
void train_interleaved(const Layout& in, const Tensor& y, double eps, Statistics<A> stats,
                       PerChannel<A>& channel) {
  const auto& k = kernels<T>();
  const T* x = in.tensor->template data<T>();
  const int64_t C = in.channels, rows = in.rows(), per_block = block_rows(rows);
  const int64_t blocks = (rows + per_block - 1) / per_block;
  std::vector<A> shift(C);
  k.widen(x, shift.data(), C);
  std::vector<double> mean(blocks * C), m2(blocks * C);
  by_rows(rows, per_block, C, [&](int64_t b, int64_t first, int64_t n) {
    k.interleaved_moments(x + first * in.stride_row, in.stride_row, n, C, shift.data(),
                          &mean[b * C], &m2[b * C]);
  });
  for (int64_t c = 0; c < C; ++c) {
    Moments m{};
    for (int64_t b = 0; b < blocks; ++b)
      combine(m, {double(std::min(per_block, rows - b * per_block)), mean[b * C + c], m2[b * C + c]});
    const double rstd = rstd_of(m, eps);
    stats.set(c, shift[c], m, rstd);
    channel.set(c, rstd);
  }
  apply_interleaved<T>(in, y, stats.mean, stats.residual, channel);
}

std::tuple<Tensor, Tensor> batch_norm_train(const Tensor& x, const Tensor* weight,
                                            const Tensor* bias, double eps) {
  check_batch(x);
  STD_TORCH_CHECK(eps >= 0, "normkit: eps must not be negative");
  const Layout in(x);
  Tensor y = in.output(x);
  const ScalarType type = x.scalar_type();
  Tensor statistics = none(type);
  with_type(type, "input", [&](auto element) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    const Vector<A> gain(weight, "weight", in.channels), shift(bias, "bias", in.channels);
    statistics = zeros_if(x.numel() == 0, {4, in.channels}, scalar_type_of<A>());
    if (x.numel() == 0) return;
    PerChannel<A> channel(gain, shift, in.channels);
    const Statistics<A> stats(statistics, in.channels);
    if (in.interleaved)
      train_interleaved<T>(in, y, eps, stats, channel);
    else
      train_planar<T>(in, y, eps, stats, channel);
  });
  return {std::move(y), std::move(statistics)};
}

Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor* weight, const Tensor* bias, double eps) {
  check_batch(x);
  STD_TORCH_CHECK(eps >= 0, "normkit: eps must not be negative");
  const Layout in(x);
  Tensor y = in.output(x);
  with_type(x.scalar_type(), "input", [&](auto element) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    const int64_t C = in.channels;
    const Vector<A> gain(weight, "weight", C), shift(bias, "bias", C);
    const Vector<A> mean(&running_mean, "running_mean", C), var(&running_var, "running_var", C);
    if (x.numel() == 0) return;
    PerChannel<A> channel(gain, shift, C);
    for (int64_t c = 0; c < C; ++c) channel.set(c, 1.0 / std::sqrt(double(var.get()[c]) + eps));
    const std::vector<A> residual(C);
    if (in.interleaved)
      return apply_interleaved<T>(in, y, mean.get(), residual.data(), channel);
    const auto kernel = kernels<T>().planar_apply;
    const T* from = in.tensor->template data<T>();
    T* to = y.template mutable_data<T>();
    parallel(in.batch * C, in.positions, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / C, c = i % C;
        kernel({from + n * in.stride_n + c * in.stride_c, 0}, to + i * in.positions, 0, 1,
               in.positions, mean.get()[c], A(0), channel.scale[c], channel.bias[c]);
      }
    });
  });
  return y;
}

// grad_x = gain * rstd * (grad_y - mean(grad_y) - x_hat * mean(grad_y * x_hat)), the two means being
// zero where the statistics are constants (inference).
template <class A> struct Gradient {
  Statistics<A> stats;
  PerChannel<A> channel;
  std::vector<A> mean_grad, mean_grad_x;
  std::vector<double> grad, grad_x_hat;  // their sums: the gradients of bias and weight
  bool training;
  double count;

  Gradient(const Tensor& statistics, const Vector<A>& weight, int64_t channels, bool training,
           double count)
      : stats(statistics, channels), channel(weight, Vector<A>(nullptr, "", channels), channels),
        mean_grad(channels), mean_grad_x(channels), grad(channels), grad_x_hat(channels),
        training(training), count(count) {
    for (int64_t c = 0; c < channels; ++c) channel.set(c, double(stats.rstd[c]));
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
                          in.positions, to.stats.mean[c], to.stats.residual[c],
                          to.channel.scale[c], to.mean_grad[c], to.mean_grad_x[c]);
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
                           to.stats.residual, to.channel.scale.data(), to.mean_grad.data(),
                           to.mean_grad_x.data());
  });
}

Tensor sums_like(const Tensor* like, const std::vector<double>& sums) {
  Tensor grad = empty(like->sizes(), like->scalar_type());
  fill(grad, int64_t(sums.size()), [&](int64_t i) { return sums[i]; });
  return grad;
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_bwd(const Tensor& grad_y, const Tensor& x,
                                                  const Tensor& statistics,
                                                  const Tensor* weight,
                                                  const Tensor* bias, bool training,
                                                  bool input_grad, bool weight_grad,
                                                  bool bias_grad) {
  check_batch(x);
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
    STD_TORCH_CHECK(statistics.numel() == 4 * in.channels &&
                        statistics.scalar_type() == scalar_type_of<A>(),
                    "normkit: statistics are not those of the input");
    const Vector<A> gain(weight, "weight", in.channels);
    Gradient<A> to(statistics, gain, in.channels, training, double(in.rows()));
    T* out = input_grad ? std::get<0>(result).template mutable_data<T>() : nullptr;
    if (x.numel() > 0 && in.interleaved) backward_interleaved<T>(g, in, out, to);
    if (x.numel() > 0 && !in.interleaved) backward_planar<T>(g, in, out, to);
    if (weight_grad && weight) std::get<1>(result) = sums_like(weight, to.grad_x_hat);
    if (bias_grad && bias) std::get<2>(result) = sums_like(bias, to.grad);
  });
  return result;
}

// running = (1 - momentum) * running + momentum * batch, written in the running tensor's own dtype.
template <class Batch>
void move_towards(const Tensor& running, int64_t channels, double momentum, const Batch& batch) {
  const Vector<double> old(&running, "a running statistic", channels);
  const std::vector<double> before(old.get(), old.get() + channels);
  const auto value = [&](int64_t c) { return (1 - momentum) * before[c] + momentum * batch(c); };
  if (running.is_contiguous()) return fill(running, channels, value);
  const Tensor moved = contiguous(running);
  fill(moved, channels, value);
  copy(running, moved);
}

void batch_norm_update(const Tensor* running_mean, const Tensor* running_var,
                       const Tensor* num_batches_tracked, const Tensor& statistics,
                       int64_t count, std::optional<double> momentum) {
  const int64_t channels = statistics.sizes()[1];
  for (const Tensor* t : {running_mean, running_var})
    STD_TORCH_CHECK(!t || (t->is_cpu() && t->numel() == channels),
                    "normkit: running statistics must have one element per channel");
  STD_TORCH_CHECK(momentum || num_batches_tracked,
                  "normkit: a cumulative average (momentum None) needs num_batches_tracked");
  double factor = momentum.value_or(0.0);
  if (num_batches_tracked) {
    STD_TORCH_CHECK(num_batches_tracked->numel() == 1 &&
                        num_batches_tracked->scalar_type() == ScalarType::Long,
                    "normkit: num_batches_tracked must be one int64");
    const int64_t batches = ++*num_batches_tracked->mutable_data<int64_t>();
    if (!momentum) factor = 1.0 / double(batches);
  }
  with_type(statistics.scalar_type(), "statistics", [&](auto element) {
    using A = accumulate_t<decltype(element)>;
    const Statistics<A> s(statistics, channels);
    const double unbiased = double(count) / double(count - 1);
    if (running_mean) move_towards(*running_mean, channels, factor, [&](int64_t c) { return double(s.mean[c]); });
    if (running_var)
      move_towards(*running_var, channels, factor, [&](int64_t c) { return double(s.var[c]) * unbiased; });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("batch_norm", &Boxed<batch_norm>::call);
  m.impl("batch_norm_train", &Boxed<batch_norm_train>::call);
  m.impl("batch_norm_bwd", &Boxed<batch_norm_bwd>::call);
  m.impl("batch_norm_update", &Boxed<batch_norm_update>::call);
}

}  // namespace normkit
