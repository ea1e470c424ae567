// BatchNorm forward: statistics and apply in training, apply alone in inference.
#include "batch_norm.h"

#include <atomic>

#include "careful.h"
#include "entries.h"

namespace normkit {
namespace {

// Below this many elements a channel of float is summed in double: there is no crowd of roundings
// to average out, and little to do. A half's own rounding hides them.
constexpr int64_t kFew = 256;
// Elements whose mean is what a channel is summed relative to, taken from all over it. One planar
// channel that misses is soon summed again; of interleaved ones hardly any may miss.
constexpr int64_t kSamples = 8, kSampledRows = 32;

// What a forward pass leaves in the cache: x, for the backward pass, and y. As much again for that
// pass, as a row norm does, costs more: between 4 and 9 MB training forward takes a tenth to 70%
// longer past a cache of 32, and both passes together gain nothing.
constexpr int64_t kReadAndWritten = 2;

// What every channel is normalised with, and what that is made of.
template <class T, class A = accumulate_t<T>>
class Channels {
 public:
  Channels(const Tensor* weight, const Tensor* bias, int64_t channels, double eps)
      : channels_(channels),
        weight_(weight, "weight", channels),
        bias_(bias, "bias", channels),
        shift_(channels),
        moments_(channels),
        numbers_(channels),
        from_{shift_[0], {moments_[0], moments_[1]}, weight_.get(), bias_.get(), eps},
        to_{{numbers_[0], numbers_[1], numbers_[2], numbers_[3]}, {}} {
    std::fill_n(shift(), channels, A(0));
  }

  void keep(const Tensor& statistics) { to_.statistics = statistics_of<A>(statistics, channels_); }
  A* shift() { return shift_[0]; }
  ChannelMoments moments() { return from_.moments; }
  double eps() const { return from_.eps; }
  Apply<const A*> apply() const {
    const auto& a = to_.apply;
    return {a.mean, a.scale, a.scale_rest, a.bias};
  }

  // From the moments of channels [begin, end) to their numbers.
  void set(int64_t begin, int64_t end) {
    if (!kernels<T>().channel_numbers(from_, to_, begin, end)) beyond_range_ = true;
  }

  // Once more, for the channels where a step leaves A's range.
  void redo_beyond_range(const Layout& in, T* y, bool training) {
    for (int64_t c = 0; beyond_range_ && c < channels_; ++c)
      if (!kernels<T>().channel_numbers(from_, to_, c, c + 1)) redo(in, y, training, c);
  }

 private:
  int64_t channels_;
  Vector<A> weight_, bias_;
  PerChannel<A, 1> shift_;
  PerChannel<double, 2> moments_;
  PerChannel<A, 4> numbers_;
  ChannelSources<A> from_;
  ChannelNumbers<A> to_;
  std::atomic<bool> beyond_range_ = false;

  void redo(const Layout& in, T* out, bool training, int64_t c) {
    const auto x = channel<T>(in, c);
    const auto y = channel(out, in, c);
    if (training && !careful::all_finite(in.rows(), x)) return;  // it is nan, and stays so
    const double eps = from_.eps, shift = from_.shift[c], mean = from_.moments.mean[c];
    const auto g = training
                       ? careful::measured(in.rows(), x, {eps})
                       : careful::given(in.rows(), x, shift + mean, from_.moments.variance[c], eps);
    const double weight = from_.weight ? double(from_.weight[c]) : 1.0;
    const double bias = from_.bias ? double(from_.bias[c]) : 0.0;
    careful::normalize(
        g, in.rows(), x, [&](int64_t) { return weight; }, [&](int64_t) { return bias; },
        [&](int64_t i, double v) { set_element(y.at(i), v); });
    const ChannelStatistics<A>& kept = to_.statistics;
    if (!kept.rstd) return;
    const Mean<double> exact = g.true_mean();
    const Mean<A> centre = split_mean<A>(exact.mean, exact.residual);
    kept.mean[c] = canonical(centre.mean);
    kept.residual[c] = canonical(centre.residual);
    kept.rstd[c] = canonical(-A(g.true_rstd()));  // the backward pass takes care as well
    kept.var[c] = canonical(A(g.true_var()));
  }
};

// The sums of every channel of a batch, and what they are worth.
template <class T, class A = accumulate_t<T>>
class Totals {
 public:
  Totals(const Layout& in, Channels<T>& channels)
      : exact(in.rows() < kFew && sizeof(T) >= sizeof(float)),
        count_(double(in.rows())),
        to_(channels),
        numbers_(in.channels) {}

  const bool exact;  // whether they were summed in double

  ChannelSums sums() { return {numbers_[0], numbers_[1], numbers_[2]}; }
  // From sums to moments, of channels [begin, end). again(c) is called for those that can't be
  // relied on: their sums must be taken again, in double and relative to another shift, which is
  // set here. Such are few: they are looked for by halves, down to a handful.
  template <class Again>
  void conclude(int64_t begin, int64_t end, const Again& again) {
    if (are_sound(begin, end, exact)) return;
    if (end - begin > kHandful) {
      const int64_t middle = begin + (end - begin) / 2;
      conclude(begin, middle, again);
      return conclude(middle, end, again);
    }
    for (int64_t c = begin; c < end; ++c) {
      if (are_sound(c, c + 1, exact)) continue;
      move_shift(c);
      again(c);
    }
  }
  void conclude_again(int64_t c) { are_sound(c, c + 1, true); }

 private:
  static constexpr int64_t kHandful = 8;

  double count_;
  Channels<T>& to_;
  PerChannel<double, 3> numbers_;

  void move_shift(int64_t c) {
    A& shift = to_.shift()[c];
    const A better = A(double(shift) + to_.moments().mean[c]);
    shift = std::isfinite(better) ? better : std::isfinite(shift) ? shift : A(0);
  }
  // Sets the moments of channels [begin, end); whether they can be relied on.
  bool are_sound(int64_t begin, int64_t end, bool exactly) {
    return kernels<T>().channel_moments(sums(), count_, to_.eps(), exactly, to_.moments(), begin,
                                        end);
  }
};

// Of planar channels [begin, end), each sample's planes one after the other, as they lie in memory.
template <class T, class A = accumulate_t<T>>
void set_rough_means(const Layout& in, int64_t begin, int64_t end, A* means) {
  const int64_t samples = std::min(kSamples, in.batch), step = in.batch / samples;
  const int64_t each = std::min(in.positions, kSamples / samples), apart = in.positions / each;
  std::vector<double> sums(end - begin);
  for (int64_t n = 0; n < samples; ++n) {
    const T* x = in.tensor->template data<T>() + n * step * in.stride_n + begin * in.stride_c;
    for (double& sum : sums) {
      for (int64_t s = 0; s < each; ++s) sum += element(x + s * apart);
      x += in.stride_c;
    }
  }
  for (int64_t c = begin; c < end; ++c) means[c] = A(sums[c - begin] / double(samples * each));
}

template <class T, class A = accumulate_t<T>>
void set_rough_means(const Layout& in, int64_t most, A* means) {
  const int64_t samples = std::min(most, in.rows()), step = in.rows() / samples;
  PerChannel<double, 3> sums(in.channels);
  kernels<T>().interleaved_sums({in.tensor->template data<T>(), step * in.stride_row},
                                {samples, in.channels, Traffic::cached}, means, false, sums[0],
                                sums[1], sums[2]);
  for (int64_t c = 0; c < in.channels; ++c) means[c] = A(sums[0][c] / double(samples));
}

template <class T, class A = accumulate_t<T>>
void train_planar(const Layout& in, T* out, Channels<T>& channels) {
  const auto& k = kernels<T>();
  const int64_t group = group_of(in, 1);
  const Chunks chunks(in, group, traffic(kReadAndWritten * in.bytes(), in.run(group)), kTwoPasses);
  const int64_t C = in.channels;
  std::vector<Sums> partial(C * chunks.count);
  Totals<T> totals(in, channels);
  A* shift = channels.shift();
  const auto sum = [&](int64_t i, const Part& p, bool exact) {
    k.planar_sums(planes<T>(in, p), p.box, &shift[p.c], exact, &partial[i * C + p.c]);
  };
  const auto add_up = [&](int64_t c) {
    Sums s{};
    for (int64_t i = 0; i < chunks.count; ++i) {
      const Sums& part = partial[i * C + c];
      s = {s.sum + part.sum, s.squares + part.squares, std::max(s.peak, part.peak)};
    }
    const ChannelSums to = totals.sums();
    to.sum[c] = s.sum, to.squares[c] = s.squares, to.peak[c] = s.peak;
  };
  const auto again = [&](int64_t c) {
    for (int64_t i = 0; i < chunks.count; ++i) sum(i, chunks.at(i, c, 1), true);
    add_up(c);
    totals.conclude_again(c);
  };
  by_channels(
      chunks, [&](int64_t begin, int64_t end) { set_rough_means<T>(in, begin, end, shift); },
      [&](int64_t i, const Part& p) { sum(i, p, totals.exact); },
      [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) add_up(c);
        totals.conclude(begin, end, again);
        channels.set(begin, end);
      },
      [&](const Part& p) {
        k.planar_apply(planes<T>(in, p), planes(out, chunks, p), p.box, channels.apply().from(p.c));
      });
}

template <class T>
void apply_interleaved(const Layout& in, T* out, const Channels<T>& channels,
                       const Blocks& blocks) {
  blocks.backwards([&](int64_t, int64_t first, const Span& span) {
    kernels<T>().interleaved_apply(rows<T>(in, first), out + first * in.channels, span,
                                   channels.apply());
  });
}

// The sums of every channel of interleaved data, block by block.
class InterleavedSums {
 public:
  explicit InterleavedSums(const Blocks& blocks)
      : blocks_(blocks), partial_(blocks.count * blocks.channels) {}

  template <class T, class A>
  void add_up(const Layout& in, const A* shift, bool exact, const ChannelSums& to) {
    const int64_t C = blocks_.channels;
    blocks_.forwards([&](int64_t b, int64_t first, const Span& span) {
      kernels<T>().interleaved_sums(rows<T>(in, first), span, shift, exact, partial_[0] + b * C,
                                    partial_[1] + b * C, partial_[2] + b * C);
    });
    parallel(C, 3 * blocks_.count, [&](int64_t begin, int64_t end) {
      const auto add = kernels<double>().add_partials;
      add(partial_[0] + begin, blocks_.count, C, end - begin, false, to.sum + begin);
      add(partial_[1] + begin, blocks_.count, C, end - begin, false, to.squares + begin);
      raise(partial_[2], to.peak, begin, end);
    });
  }

 private:
  const Blocks& blocks_;
  PerChannel<double, 3> partial_;

  void raise(const double* peaks, double* most, int64_t begin, int64_t end) const {
    std::copy(peaks + begin, peaks + end, most + begin);
    for (int64_t b = 1; b < blocks_.count; ++b) {
      peaks += blocks_.channels;
      for (int64_t c = begin; c < end; ++c) most[c] = std::max(most[c], peaks[c]);
    }
  }
};

template <class T, class A = accumulate_t<T>>
void train_interleaved(const Layout& in, T* out, Channels<T>& channels) {
  const int64_t C = in.channels;
  const Blocks blocks(in, traffic(kReadAndWritten * in.bytes(), in.run(1)), kTwoPasses);
  InterleavedSums sums(blocks);
  Totals<T> totals(in, channels);
  set_rough_means<T>(in, totals.exact ? 1 : kSampledRows, channels.shift());
  sums.add_up<T>(in, channels.shift(), totals.exact, totals.sums());
  std::vector<int64_t> again;
  totals.conclude(0, C, [&](int64_t c) { again.push_back(c); });
  if (!again.empty()) {
    // Only the channels that need it take the second result: none sees another's data.
    sums.add_up<T>(in, channels.shift(), true, totals.sums());
    for (const int64_t c : again) totals.conclude_again(c);
  }
  for_channels(C, [&](int64_t begin, int64_t end) { channels.set(begin, end); });
  apply_interleaved<T>(in, out, channels, blocks);
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
    channels.keep(statistics);
    if (x.numel() == 0) return;
    T* out = y.template mutable_data<T>();
    if (in.interleaved)
      train_interleaved<T>(in, out, channels);
    else
      train_planar<T>(in, out, channels);
    channels.redo_beyond_range(in, out, true);
  });
  return {std::move(y), std::move(statistics)};
}

template <class T>
void apply_planar(const Layout& in, T* out, const Channels<T>& channels, const Chunks& chunks) {
  const int64_t C = in.channels, pieces = chunks.pieces;
  parallel(in.batch * pieces, chunks.cost * C * in.positions / pieces, chunks.traffic,
           [&](int64_t begin, int64_t end) {
             for (int64_t i = begin; i < end; ++i) {
               Part p = chunks.at(i % pieces, 0, C);
               p.n = i / pieces;
               p.box.batch = 1;
               kernels<T>().planar_apply(planes<T>(in, p), planes(out, chunks, p), p.box,
                                         channels.apply());
             }
           });
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
    std::copy_n(mean.get(), C, channels.moments().mean);
    std::copy_n(var.get(), C, channels.moments().variance);
    if (statistics) channels.keep(statistics->emplace(empty({4, C}, scalar_type_of<A>())));
    for_channels(C, [&](int64_t begin, int64_t end) { channels.set(begin, end); });
    if (x.numel() == 0) return;
    T* out = y.template mutable_data<T>();
    // A backward pass reads it all again.
    const Traffic way = statistics ? traffic(kReadAndWritten * in.bytes(), in.run(C))
                                   : traffic_of_copy(in.bytes(), in.run(C));
    const int64_t cost = statistics ? kTwoPasses : 1;
    if (in.interleaved)
      apply_interleaved<T>(in, out, channels, Blocks(in, way, cost));
    else
      apply_planar<T>(in, out, channels, Chunks(in, C, way, cost));
    channels.redo_beyond_range(in, out, false);
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

void add_batch_norm(Entries& to) {
  to.batch_norm = &Direct<batch_norm>::call;
  to.batch_norm_fixed_fwd = &Direct<batch_norm_fixed>::call;
  to.batch_norm_step = &Direct<batch_norm_step>::call;
}

}  // namespace normkit
