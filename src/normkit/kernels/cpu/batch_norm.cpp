// BatchNorm forward: statistics and apply in training, apply alone in inference.
#include "batch_norm.h"

namespace normkit {
namespace {

// Below this many elements a channel is summed in double: there is no crowd of roundings to average
// out, and little to do.
constexpr int64_t kFew = 256;
// Elements whose mean is what a channel is summed relative to, taken from all over it. One planar
// channel that misses is soon summed again; of interleaved ones hardly any may miss.
constexpr int64_t kSamples = 8, kSampledRows = 32;

// What a channel is normalised with: its statistics and their use.
template <class T, class A = accumulate_t<T>>
struct Channels {
  const Vector<A> weight, bias;
  PerChannel<A, 4> numbers;
  PerChannel<double, 3> exact;  // mean, scale, bias
  Apply<A*> apply;
  double eps;
  std::optional<Statistics<A>> statistics;

  Channels(const Tensor* weight, const Tensor* bias, int64_t channels, double eps)
      : weight(weight, "weight", channels),
        bias(bias, "bias", channels),
        numbers(channels),
        exact(channels),
        apply{numbers[0], numbers[1], numbers[2], numbers[3]},
        eps(eps) {}

  void set(int64_t c, Mean<A> m, double variance) {
    const double rstd = 1.0 / std::sqrt(variance + eps);
    const double scale = rstd * (weight.get() ? double(weight.get()[c]) : 1.0);
    const double shift = bias.get() ? double(bias.get()[c]) : 0.0;
    apply.mean[c] = m.mean;
    apply.bias[c] = A(shift - double(m.residual) * scale);
    std::tie(apply.scale[c], apply.scale_rest[c]) = split_scale<A>(scale);
    if (statistics) statistics->set(c, m, variance, rstd);
    exact[0][c] = double(m.mean) + double(m.residual);
    exact[1][c] = scale;
    exact[2][c] = shift;
  }

  // Whether a step in float would leave its range, though the result may not.
  bool beyond_float(int64_t c) {
    const double size = std::abs(exact[1][c]);
    return sizeof(A) == sizeof(float) && size != 0 &&
           !(std::abs(exact[0][c]) < 1e30 && size > 1e-30 && size < 1e30);
  }

  Apply<const A*> all() const { return {apply.mean, apply.scale, apply.scale_rest, apply.bias}; }
};

// A channel's moments, of sums relative to a shift.
struct Moments {
  double mean;  // relative to the shift
  double variance;

  Moments(const Sums& s, double count)
      : mean(s.sum / count), variance(s.squares / count - mean * mean) {
    if (variance < 0) variance = 0;
  }
};

// Whether sums are right: float held the squares, the shift was near enough that they do not cancel
// (in double, 2^20 variances off, they keep 2^-32), and float32, whose last place shows it, has no
// few squares that are most of the sum.
template <class T>
bool sound(const Sums& s, const Moments& m, double eps, bool exact) {
  const bool held =
      sizeof(T) == sizeof(double) || (m.variance < 1e37 && (m.variance > 1e-25 || eps > 1e-25));
  const double slack = exact && sizeof(T) != sizeof(double) ? 0x1p20 : 1;
  return held && std::isfinite(m.variance) && m.mean * m.mean <= slack * m.variance &&
         (sizeof(T) != sizeof(float) || even(s.peak, s.squares));
}

template <class T, class A = accumulate_t<T>>
A rough_mean(const Layout& in, int64_t c) {
  const int64_t samples = std::min(kSamples, in.batch), step = in.batch / samples;
  const int64_t each = std::min(in.positions, kSamples / samples), apart = in.positions / each;
  const T* x = in.tensor->template data<T>() + c * in.stride_c;
  double sum = 0;
  for (int64_t n = 0; n < samples; ++n)
    for (int64_t s = 0; s < each; ++s) sum += element(x + n * step * in.stride_n + s * apart);
  return A(sum / double(samples * each));
}

template <class T, class A = accumulate_t<T>>
std::vector<A> rough_means(const Layout& in, int64_t most) {
  const int64_t samples = std::min(most, in.rows()), step = in.rows() / samples;
  std::vector<A> means(in.channels);
  std::vector<double> sum(3 * in.channels);
  kernels<T>().interleaved_sums({in.tensor->template data<T>(), step * in.stride_row},
                                {samples, in.channels, Traffic::cached}, means.data(), false,
                                &sum[0], &sum[in.channels], &sum[2 * in.channels]);
  for (int64_t c = 0; c < in.channels; ++c) means[c] = A(sum[c] / double(samples));
  return means;
}

// What sums are taken relative to where the first try failed.
template <class A>
A better_shift(A shift, double mean) {
  const A better = A(double(shift) + mean);
  return std::isfinite(better) ? better : std::isfinite(shift) ? shift : A(0);
}

template <class T, class A = accumulate_t<T>>
void train_planar(const Layout& in, const Tensor& y, Channels<T>& channels) {
  const auto& k = kernels<T>();
  const Chunks chunks(in, traffic(4 * in.bytes()));
  const int64_t C = in.channels;
  T* out = y.template mutable_data<T>();
  std::vector<Sums> partial(C * chunks.count);
  std::vector<A> shift(C);
  const auto sum = [&](int64_t i, const Part& p, bool exact) {
    k.planar_sums(planes<T>(in, p), p.box, &shift[p.c], exact, &partial[i * C + p.c]);
  };
  const auto total = [&](int64_t c) {
    Sums s{};
    for (int64_t i = 0; i < chunks.count; ++i) {
      const Sums& part = partial[i * C + c];
      s = {s.sum + part.sum, s.squares + part.squares, std::max(s.peak, part.peak)};
    }
    return s;
  };
  const double count = double(in.rows());
  by_channels(
      chunks, sizeof(T), [&](int64_t c) { shift[c] = rough_mean<T>(in, c); },
      [&](int64_t i, const Part& p) { sum(i, p, in.rows() < kFew); },
      [&](int64_t c) {
        const Sums sums = total(c);
        Moments m(sums, count);
        if (!sound<T>(sums, m, channels.eps, in.rows() < kFew)) {
          shift[c] = better_shift(shift[c], m.mean);
          for (int64_t i = 0; i < chunks.count; ++i) sum(i, chunks.at(i, c, 1), true);
          m = Moments(total(c), count);
        }
        channels.set(c, split_mean<A>(shift[c], m.mean), m.variance);
      },
      [&](const Part& p) {
        k.planar_apply(planes<T>(in, p), planes(out, chunks, p), p.box, channels.all().from(p.c));
      });
}

// The channels that float cannot hold, once more in double: one element at a time, for they are
// rare.
template <class T>
void redo_beyond_float(const Layout& in, const Tensor& y, Channels<T>& channels) {
  const T* x = in.tensor->template data<T>();
  auto* out = y.template mutable_data<decltype(rounded(T{}, 0))>();
  const auto redo = [&](int64_t c, int64_t n, int64_t s) {
    const int64_t row = n * in.positions + s;
    const int64_t from =
        in.interleaved ? row * in.stride_row + c : n * in.stride_n + c * in.stride_c + s;
    const int64_t to =
        in.interleaved ? row * in.channels + c : (n * in.channels + c) * in.positions + s;
    out[to] = rounded(T{}, (element(x + from) - channels.exact[0][c]) * channels.exact[1][c] +
                               channels.exact[2][c]);
  };
  for (int64_t c = 0; c < in.channels; ++c) {
    if (!channels.beyond_float(c)) continue;
    for (int64_t n = 0; n < in.batch; ++n)
      for (int64_t s = 0; s < in.positions; ++s) redo(c, n, s);
  }
}

template <class T>
void apply_interleaved(const Layout& in, const Tensor& y, const Channels<T>& channels,
                       const Blocks& blocks) {
  T* out = y.template mutable_data<T>();
  blocks.backwards([&](int64_t, int64_t first, const Span& span) {
    kernels<T>().interleaved_apply(rows<T>(in, first), out + first * in.channels, span,
                                   channels.all());
  });
}

// The sums of every channel of interleaved data.
class InterleavedSums {
 public:
  InterleavedSums(const Blocks& blocks)
      : channels_(blocks.channels),
        numbers_(std::make_unique_for_overwrite<double[]>(3 * channels_)),
        partial_(std::make_unique_for_overwrite<double[]>(3 * blocks.count * channels_)) {}

  template <class T, class A>
  void add_up(const Layout& in, const Blocks& blocks, const A* shift, bool exact) {
    const int64_t C = channels_, size = blocks.count * C;
    double *sums = partial_.get(), *squares = sums + size, *peaks = squares + size;
    blocks.forwards([&](int64_t b, int64_t first, const Span& span) {
      kernels<T>().interleaved_sums(rows<T>(in, first), span, shift, exact, sums + b * C,
                                    squares + b * C, peaks + b * C);
    });
    kernels<double>().add_partials(sums, blocks.count, C, C, &numbers_[0]);
    kernels<double>().add_partials(squares, blocks.count, C, C, &numbers_[C]);
    double* largest = &numbers_[2 * C];
    std::copy_n(peaks, C, largest);
    for (int64_t b = 1; b < blocks.count; ++b)
      for (int64_t c = 0; c < C; ++c) largest[c] = std::max(largest[c], peaks[b * C + c]);
  }

  Sums operator[](int64_t c) const {
    return {numbers_[c], numbers_[channels_ + c], numbers_[2 * channels_ + c]};
  }

 private:
  int64_t channels_;
  std::unique_ptr<double[]> numbers_, partial_;
};

template <class T, class A = accumulate_t<T>>
void train_interleaved(const Layout& in, const Tensor& y, Channels<T>& channels) {
  const int64_t C = in.channels;
  const double count = double(in.rows());
  const bool few = in.rows() < kFew;
  const Blocks blocks(in, traffic(4 * in.bytes()));
  std::vector<A> shift = rough_means<T>(in, few ? 1 : kSampledRows);
  InterleavedSums sums(blocks);
  const auto set = [&](int64_t c, const Moments& m) {
    channels.set(c, split_mean<A>(shift[c], m.mean), m.variance);
  };
  sums.add_up<T>(in, blocks, shift.data(), few);
  std::vector<char> again(C);
  for_channels(C, [&](int64_t c) {
    const Moments m(sums[c], count);
    again[c] = !sound<T>(sums[c], m, channels.eps, few);
    if (again[c])
      shift[c] = better_shift(shift[c], m.mean);
    else
      set(c, m);
  });
  if (std::find(again.begin(), again.end(), 1) != again.end()) {
    // Only the channels that need it take the second result: none sees another's data.
    sums.add_up<T>(in, blocks, shift.data(), true);
    for (int64_t c = 0; c < C; ++c)
      if (again[c]) set(c, Moments(sums[c], count));
  }
  apply_interleaved<T>(in, y, channels, blocks);
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
    statistics = zeros_if(x.numel() == 0, {4, in.channels}, scalar_type_of<A>());
    Channels<T> channels(weight, bias, in.channels, eps);
    channels.statistics.emplace(statistics, in.channels);
    if (x.numel() == 0) return;
    if (in.interleaved)
      train_interleaved<T>(in, y, channels);
    else
      train_planar<T>(in, y, channels);
    redo_beyond_float<T>(in, y, channels);
  });
  return {std::move(y), std::move(statistics)};
}

// Applies given statistics; keeps them where the backward pass will want them.
Tensor apply_fixed(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                   const Tensor* weight, const Tensor* bias, double eps,
                   std::optional<Tensor>* statistics) {
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
    Channels<T> channels(weight, bias, C, eps);
    const Vector<double> mean(&running_mean, "running_mean", C),
        var(&running_var, "running_var", C);
    if (statistics) {
      statistics->emplace(empty({4, C}, scalar_type_of<A>()));
      channels.statistics.emplace(**statistics, C);
    }
    for_channels(
        C, [&](int64_t c) { channels.set(c, split_mean<A>(mean.get()[c], 0), var.get()[c]); });
    if (x.numel() == 0) return;
    const Traffic way = traffic((statistics ? 4 : 2) * in.bytes());
    if (in.interleaved) {
      apply_interleaved<T>(in, y, channels, Blocks(in, way));
      return redo_beyond_float<T>(in, y, channels);
    }
    const Chunks chunks(in, way);
    T* out = y.template mutable_data<T>();
    parallel(in.batch * chunks.pieces, C * in.positions / chunks.pieces, way,
             [&](int64_t begin, int64_t end) {
               for (int64_t i = begin; i < end; ++i) {
                 Part p = chunks.at(i % chunks.pieces, 0, C);
                 p.n = i / chunks.pieces;
                 p.box.batch = 1;
                 kernels<T>().planar_apply(planes<T>(in, p), planes(out, chunks, p), p.box,
                                           channels.all());
               }
             });
    redo_beyond_float<T>(in, y, channels);
  });
  return y;
}

Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor* weight, const Tensor* bias, double eps) {
  return apply_fixed(x, running_mean, running_var, weight, bias, eps, nullptr);
}

std::tuple<Tensor, Tensor> batch_norm_fixed(const Tensor& x, const Tensor& running_mean,
                                            const Tensor& running_var, const Tensor* weight,
                                            const Tensor* bias, double eps) {
  std::optional<Tensor> statistics;
  Tensor y = apply_fixed(x, running_mean, running_var, weight, bias, eps, &statistics);
  return {std::move(y), std::move(*statistics)};
}

// A training step whole: a small batch's time is mostly that of calls.
std::tuple<Tensor, Tensor> batch_norm_step(const Tensor& x, const Tensor* weight,
                                           const Tensor* bias, double eps,
                                           const Tensor* running_mean, const Tensor* running_var,
                                           const Tensor* num_batches_tracked,
                                           std::optional<double> momentum) {
  auto result = batch_norm_train(x, weight, bias, eps);
  const int64_t count = x.numel() / std::max<int64_t>(1, x.sizes()[1]);
  if (count == 0) running_mean = running_var = nullptr;  // a batch to count, and nothing to learn
  if (running_mean || running_var || num_batches_tracked)
    batch_norm_update(running_mean, running_var, num_batches_tracked, std::get<1>(result),
                      count == 0 ? 2 : count, momentum);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("batch_norm", &Boxed<batch_norm>::call);
  m.impl("batch_norm_fixed", &Boxed<batch_norm_fixed>::call);
  m.impl("batch_norm_fixed_fwd", &Boxed<batch_norm_fixed>::call);
  m.impl("batch_norm_train", &Boxed<batch_norm_train>::call);
  m.impl("batch_norm_step", &Boxed<batch_norm_step>::call);
  m.impl("batch_norm_train_fwd", &Boxed<batch_norm_train>::call);
}

}  // namespace normkit
