// BatchNorm forward: statistics and apply in training, apply alone in inference, and the update of
// the running statistics.
#include "batch_norm.h"

#include <cmath>

namespace normkit {
namespace {

// Chan, Golub & LeVeque (1979): the moments of two parts together.
void combine(Moments& a, const Moments& b) {
  const double count = a.count + b.count;
  const double delta = b.mean - a.mean;
  a.mean += delta * (b.count / count);
  a.m2 += b.m2 + delta * delta * (a.count * b.count / count);
  a.count = count;
}

// A channel's moments, relative to shift, as what is saved and what is applied.
template <class T, class A = accumulate_t<T>>
void set_channel(int64_t c, A shift, const Moments& m, double eps, Statistics<A>& stats,
                 PerChannel<T>& channel) {
  const double variance = m.m2 / m.count, rstd = 1.0 / std::sqrt(variance + eps);
  stats.set(c, split_mean<A>(shift, m.mean), variance, rstd);
  channel.set(c, split_mean<apply_t<T>>(shift, m.mean), rstd);
}

template <class T, class A = accumulate_t<T>>
void train_planar(const Layout& in, const Tensor& y, double eps, Statistics<A> stats,
                  PerChannel<T>& channel) {
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
        set_channel<T>(c, shift(c), m, eps, stats, channel);
      },
      [&](int64_t c, int64_t begin, int64_t end) {
        const int64_t plane = in.channels * in.positions;
        k.planar_apply({x + begin * in.stride_n + c * in.stride_c, in.stride_n},
                       out + begin * plane + c * in.positions, plane, end - begin, in.positions,
                       channel.mean[c], channel.scale[c], channel.bias[c]);
      });
}

template <class T, class A = accumulate_t<T>>
void apply_interleaved(const Layout& in, const Tensor& y, const PerChannel<T>& channel) {
  const auto& k = kernels<T>();
  const T* x = in.tensor->template data<T>();
  T* out = y.template mutable_data<T>();
  parallel(in.rows(), in.channels, [&](int64_t begin, int64_t end) {
    k.interleaved_apply(x + begin * in.stride_row, in.stride_row, out + begin * in.channels,
                        end - begin, in.channels, channel.mean.data(), channel.scale.data(),
                        channel.bias.data());
  });
}

template <class T, class A = accumulate_t<T>>
void train_interleaved(const Layout& in, const Tensor& y, double eps, Statistics<A> stats,
                       PerChannel<T>& channel) {
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
      combine(m,
              {double(std::min(per_block, rows - b * per_block)), mean[b * C + c], m2[b * C + c]});
    set_channel<T>(c, shift[c], m, eps, stats, channel);
  }
  apply_interleaved<T>(in, y, channel);
}

std::tuple<Tensor, Tensor> batch_norm_train(const Tensor& x, const Tensor* weight,
                                            const Tensor* bias, double eps) {
  check_batch(x);
  check_per_channel(weight, "weight", x);
  check_per_channel(bias, "bias", x);
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
    PerChannel<T> channel(gain, shift, in.channels);
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
  check_per_channel(&running_mean, "running_mean", x);
  check_per_channel(&running_var, "running_var", x);
  check_per_channel(weight, "weight", x);
  check_per_channel(bias, "bias", x);
  STD_TORCH_CHECK(eps >= 0, "normkit: eps must not be negative");
  const Layout in(x);
  Tensor y = in.output(x);
  with_type(x.scalar_type(), "input", [&](auto element) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    const int64_t C = in.channels;
    const Vector<A> gain(weight, "weight", C), shift(bias, "bias", C);
    const Vector<double> mean(&running_mean, "running_mean", C),
        var(&running_var, "running_var", C);
    if (x.numel() == 0) return;
    PerChannel<T> channel(gain, shift, C);
    for (int64_t c = 0; c < C; ++c)
      channel.set(c, split_mean<apply_t<T>>(mean.get()[c], 0), 1.0 / std::sqrt(var.get()[c] + eps));
    if (in.interleaved) return apply_interleaved<T>(in, y, channel);
    const auto kernel = kernels<T>().planar_apply;
    const T* from = in.tensor->template data<T>();
    T* to = y.template mutable_data<T>();
    parallel(in.batch * C, in.positions, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / C, c = i % C;
        kernel({from + n * in.stride_n + c * in.stride_c, 0}, to + i * in.positions, 0, 1,
               in.positions, channel.mean[c], channel.scale[c], channel.bias[c]);
      }
    });
  });
  return y;
}

// running = (1 - momentum) * running + momentum * batch, for every channel.
template <class Batch>
std::vector<double> moved(const Tensor* running, int64_t channels, double momentum,
                          const Batch& batch) {
  const Vector<double> before(running, "a running statistic", channels);
  std::vector<double> after(running ? channels : 0);
  for (size_t c = 0; c < after.size(); ++c)
    after[c] = (1 - momentum) * before.get()[c] + momentum * batch(int64_t(c));
  return after;
}

void write(const Tensor* running, const std::vector<double>& values) {
  if (!running) return;
  const auto value = [&](int64_t c) { return values[c]; };
  if (running->is_contiguous()) return fill(*running, int64_t(values.size()), value);
  const Tensor dense = empty(running->sizes(), running->scalar_type());
  fill(dense, int64_t(values.size()), value);
  copy(*running, dense);
}

void check_running(const Tensor* t, int64_t channels) {
  if (!t) return;
  STD_TORCH_CHECK(t->is_cpu() && t->dim() == 1 && t->sizes()[0] == channels &&
                      (channels <= 1 || t->strides()[0] != 0),
                  "normkit: running statistics must have one element of their own per channel");
  with_type(t->scalar_type(), "a running statistic", [](auto) {});
}

// Everything is checked and computed before anything is written.
void batch_norm_update(const Tensor* running_mean, const Tensor* running_var,
                       const Tensor* num_batches_tracked, const Tensor& statistics, int64_t count,
                       std::optional<double> momentum) {
  const ScalarType type = statistics.scalar_type();
  const Saved saved(statistics, type == ScalarType::Double ? type : ScalarType::Float);
  const int64_t channels = saved.channels();
  check_running(running_mean, channels);
  check_running(running_var, channels);
  STD_TORCH_CHECK(count > 1, "normkit: one value has no variance");
  STD_TORCH_CHECK(momentum || num_batches_tracked,
                  "normkit: a cumulative average (momentum None) needs num_batches_tracked");
  STD_TORCH_CHECK(
      !num_batches_tracked || (num_batches_tracked->is_cpu() && num_batches_tracked->numel() == 1 &&
                               num_batches_tracked->scalar_type() == ScalarType::Long),
      "normkit: num_batches_tracked must be one int64");
  int64_t* batches = num_batches_tracked ? num_batches_tracked->mutable_data<int64_t>() : nullptr;
  const double factor = momentum ? *momentum : 1.0 / double(*batches + 1);
  with_type(type, "statistics", [&](auto element) {
    using A = accumulate_t<decltype(element)>;
    const Statistics<A> s(saved.get(), channels);
    const double unbiased = double(count) / double(count - 1);
    const auto mean =
        moved(running_mean, channels, factor, [&](int64_t c) { return double(s.mean[c]); });
    const auto var = moved(running_var, channels, factor,
                           [&](int64_t c) { return double(s.var[c]) * unbiased; });
    write(running_mean, mean);
    write(running_var, var);
  });
  if (batches) ++*batches;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("batch_norm", &Boxed<batch_norm>::call);
  m.impl("batch_norm_train", &Boxed<batch_norm_train>::call);
  m.impl("batch_norm_update", &Boxed<batch_norm_update>::call);
}

}  // namespace normkit
