// What BatchNorm's forward and backward share: how the work is cut up, and the numbers per channel.
//
// statistics is (4, C) in the accumulation dtype: rstd, mean, residual, biased variance.
#pragma once

#include <bit>
#include <cmath>

#include "layout.h"
#include "tensors.h"

namespace normkit {

// Elements of one channel that make one partial sum, and at most this many partial sums over the
// rows of interleaved data. All depend on the shape alone, so results do not depend on the number
// of threads.
constexpr int64_t kChunk = 32768;
constexpr int64_t kMinBlockRows = 64;
constexpr int64_t kMaxBlocks = 128;

// A part of planar data: channels [c, c + box.channels) of samples [n, n + box.batch), positions
// [s, s + box.length).
struct Part {
  int64_t n, c, s;
  Box box;

  // The same, where the part as many channels further on comes next.
  Part before(int64_t n_channels) const {
    Part p = *this;
    p.box.ahead = n_channels;
    return p;
  }
};

// How many channels a thread has of planar data. None where there are more threads than channels.
inline int64_t share_of(const Layout& in) {
  const int64_t threads = torch::stable::get_num_threads();
  return in.channels < threads ? 0 : (in.channels + threads - 1) / threads;
}

// How many of them are handled together in a step that reads its inputs twice: as many as stay in
// the core's own cache between. In every sample a group's planes are one run of addresses. Where
// that is shorter than a page, every group goes through the pages of the whole batch, and where
// these are more than a core remembers the addresses of, runs had better be a few pages long,
// though a group then stays in the last cache only: or, where it would need runs of less than half
// a page for that, in none.
inline int64_t group_of(const Layout& in, int64_t inputs) {
  constexpr int64_t kOwn = int64_t(384) << 10, kLast = int64_t(4) << 20;  // bytes of a group
  constexpr int64_t kPage = 4096, kRemembered = 2048 * kPage, kRun = 4 * kPage;
  const int64_t share = share_of(in);
  if (share == 0) return 0;
  const int64_t channel_bytes = inputs * in.bytes() / in.channels;
  int64_t wanted = std::max<int64_t>(1, kOwn / channel_bytes);
  if (in.bytes() * (inputs + 1) > kRemembered) {  // with those of the output
    const int64_t run = channel_bytes / in.batch, held = kLast / channel_bytes;
    const bool short_runs = held * run < inputs * kPage / 2;
    wanted = std::max(wanted, short_runs ? kRun / run : std::min(kRun / run, held));
  }
  // In groups of about one size: up to a quarter more rather than a small one at the end.
  const int64_t groups = std::max<int64_t>(1, (share + wanted * 3 / 4) / wanted);
  return (share + groups - 1) / groups;
}

// Planar data cut into chunks along batch and positions: several whole planes, or part of one.
struct Chunks {
  int64_t batch, channels, positions, group, planes, pieces, count, cost;
  Traffic traffic;

  // group: of channels that are handled together. cost: of an element, as `parallel` counts it.
  Chunks(const Layout& in, int64_t group, Traffic traffic, int64_t cost = 1)
      : batch(in.batch),
        channels(in.channels),
        positions(in.positions),
        group(group),
        cost(cost),
        traffic(traffic) {
    planes = std::max<int64_t>(4, kChunk / positions / 4 * 4);  // four are summed at once
    pieces = (positions + kChunk - 1) / kChunk;
    count = (batch + planes - 1) / planes * pieces;
  }

  Part at(int64_t i, int64_t c, int64_t n_channels) const {
    const int64_t n = i / pieces * planes, s = i % pieces * kChunk;
    return {n,
            c,
            s,
            {std::min(planes, batch - n), n_channels, std::min(kChunk, positions - s), traffic}};
  }
  Part samples(int64_t n, int64_t n_samples, int64_t c, int64_t n_channels) const {
    return {n, c, 0, {n_samples, n_channels, positions, traffic}};
  }
};

template <class T>
Planes<const T> planes(const Layout& in, const Part& p) {
  return {in.tensor->template data<T>() + p.n * in.stride_n + p.c * in.stride_c + p.s, in.stride_n,
          in.stride_c};
}
// Of a dense output.
template <class T>
Planes<T> planes(T* out, const Chunks& in, const Part& p) {
  const int64_t sample = in.channels * in.positions;
  return {out + p.n * sample + p.c * in.positions + p.s, sample, in.positions};
}

// Stages of a training step: for groups of channels where there are any (whose data `second` may
// still find in a cache), else chunk by chunk. `start` looks at channels, `first` leaves
// partial results for (chunk, channel) and `join` adds the partials of channels [begin, end) in
// their order, so both ways give the same bits.
template <class Start, class First, class Join, class Second>
void by_channels(const Chunks& chunks, const Start& start, const First& first, const Join& join,
                 const Second& second) {
  const int64_t C = chunks.channels, cost = chunks.cost * chunks.batch * chunks.positions;
  if (const int64_t size = chunks.group) {
    return parallel(C, cost, chunks.traffic, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; c += size) {
        const int64_t n = std::min(size, end - c);
        start(c, c + n);
        for (int64_t i = 0; i < chunks.count; ++i) first(i, chunks.at(i, c, n));
        join(c, c + n);
        second(chunks.samples(0, chunks.batch, c, n).before(n));
      }
    });
  }
  start(0, C);
  parallel(C * chunks.count, cost / chunks.count, chunks.traffic, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) first(i / C, chunks.at(i / C, i % C, 1));
  });
  join(0, C);
  parallel(chunks.batch, C * chunks.cost * chunks.positions, chunks.traffic,
           [&](int64_t begin, int64_t end) { second(chunks.samples(begin, end - begin, 0, C)); });
}

// The rows of interleaved data in blocks.
struct Blocks {
  int64_t rows, channels, size, count, cost;
  Traffic traffic;

  Blocks(const Layout& in, Traffic traffic, int64_t cost = 1)
      : rows(in.rows()),
        channels(in.channels),
        size(block_rows(rows)),
        count((rows + size - 1) / size),
        cost(cost),
        traffic(traffic) {}

  // f(block, first row, rows)
  template <class F>
  void forwards(const F& f) const {
    parallel(count, cost * size * channels, traffic, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) call(f, b);
    });
  }
  // The last block first: what a pass over all of them left in cache is read again before it is
  // pushed out.
  template <class F>
  void backwards(const F& f) const {
    parallel(count, cost * size * channels, traffic, [&](int64_t begin, int64_t end) {
      for (int64_t b = end - 1; b >= begin; --b) call(f, b);
    });
  }

 private:
  // A power of two of blocks, or little less: threads then get equal shares.
  static int64_t block_rows(int64_t rows) {
    const int64_t wanted = std::clamp<int64_t>(rows / kMinBlockRows, 1, kMaxBlocks);
    const int64_t count = int64_t(std::bit_ceil(uint64_t(wanted)));
    return std::max<int64_t>(1, (rows + count - 1) / count);
  }

  template <class F>
  void call(const F& f, int64_t b) const {
    f(b, b * size, Span{std::min(size, rows - b * size), channels, traffic});
  }
};

template <class T>
Rows<const T> rows(const Layout& in, int64_t first) {
  return {in.tensor->template data<T>() + first * in.stride_row, in.stride_row};
}

// A channel's elements, one by one.
template <class T>
struct Channel {
  T* data;
  int64_t run, stride, step;  // runs of elements `step` apart, each `stride` after the last

  T* at(int64_t i) const { return data + i / run * stride + i % run * step; }
  double operator()(int64_t i) const { return element(at(i)); }
};
template <class T>
Channel<const T> channel(const Layout& in, int64_t c) {
  const T* x = in.tensor->template data<T>();
  if (in.interleaved) return {x + c, in.rows(), 0, in.stride_row};
  return {x + c * in.stride_c, in.positions, in.stride_n, 1};
}
// Of a dense output.
template <class T>
Channel<T> channel(T* out, const Layout& in, int64_t c) {
  if (in.interleaved) return {out + c, in.rows(), 0, in.channels};
  return {out + c * in.positions, in.positions, in.channels * in.positions, 1};
}

// N numbers for each channel, one array after the other.
template <class A, int N>
class PerChannel {
 public:
  explicit PerChannel(int64_t channels)
      : stride_(Lines<A>::skewed(channels)), numbers_(N * stride_) {}
  A* operator[](int i) const { return numbers_.get() + i * stride_; }

 private:
  int64_t stride_;
  Lines<A> numbers_;
};

// f(begin, end) over all channels. A root and a division cost as much as some 8 elements.
template <class F>
void for_channels(int64_t channels, const F& f) {
  parallel(channels, 8, f);
}

template <class A>
ChannelStatistics<A> statistics_of(const Tensor& t, int64_t channels) {
  A* rstd = t.template mutable_data<A>();
  return {rstd, rstd + channels, rstd + 2 * channels, rstd + 3 * channels};
}

inline void check_per_channel(const Tensor* t, const char* name, const Tensor& x) {
  STD_TORCH_CHECK(!t || (t->is_cpu() && t->dim() == 1 && t->sizes()[0] == x.sizes()[1]),
                  "normkit: ", name, " must have one element per channel");
}

// The statistics as the kernels read them: dense, of the shape and dtype they were made in.
class Saved {
 public:
  Saved(const Tensor& t, ScalarType type) : dense_(&t) {
    STD_TORCH_CHECK(t.is_cpu() && t.dim() == 2 && t.sizes()[0] == 4 && t.scalar_type() == type,
                    "normkit: statistics are not those of a batch");
  }

  const Tensor& get() const { return *dense_.get(); }
  int64_t channels() const { return get().sizes()[1]; }

 private:
  Dense dense_;
};

inline void check_batch(const Tensor& x) {
  STD_TORCH_CHECK(x.is_cpu(), "normkit: input must be on the CPU");
  STD_TORCH_CHECK(x.dim() >= 2, "normkit: input must have at least 2 dimensions");
}

// Moves the running statistics towards those of a batch of `count` values per channel.
void batch_norm_update(const Tensor* running_mean, const Tensor* running_var,
                       const Tensor* num_batches_tracked, const Tensor& statistics, int64_t count,
                       std::optional<double> momentum);

}  // namespace normkit
