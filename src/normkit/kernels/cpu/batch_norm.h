// What BatchNorm's forward and backward share: how the work is cut up, and the numbers per channel.
//
// statistics is (4, C) in the accumulation dtype: rstd, mean, residual, biased variance.
#pragma once

#include "layout.h"
#include "tensors.h"

namespace normkit {

// Elements of one channel that are summed before the sum goes on in double; they stay in cache for
// the second pass over them.
constexpr int64_t kChunk = 4096;
// At most this many partial sums over the rows of interleaved data. Both numbers depend on the
// shape alone, so results do not depend on the number of threads.
constexpr int64_t kMinBlockRows = 64;
constexpr int64_t kMaxBlocks = 128;

// A channel of planar data in pieces: several whole planes, or part of one.
struct Chunks {
  int64_t batch, positions, planes, pieces, count;

  Chunks(int64_t batch, int64_t positions) : batch(batch), positions(positions) {
    planes = std::max<int64_t>(1, kChunk / positions);
    pieces = (positions + kChunk - 1) / kChunk;
    count = (batch + planes - 1) / planes * pieces;
  }

  // f(plane, planes, offset, length) for piece i.
  template <class F>
  auto at(int64_t i, const F& f) const {
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
template <class F>
void by_rows(int64_t rows, int64_t block_rows, int64_t channels, const F& f) {
  const int64_t blocks = (rows + block_rows - 1) / block_rows;
  parallel(blocks, block_rows * channels, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      f(b, b * block_rows, std::min(block_rows, rows - b * block_rows));
  });
}

inline int64_t block_rows(int64_t rows) {
  return std::max(kMinBlockRows, (rows + kMaxBlocks - 1) / kMaxBlocks);
}

// y = (x - mean) * scale + bias for each channel; the mean's residual has gone into the bias.
template <class T, class A = accumulate_t<T>, class P = apply_t<T>>
struct PerChannel {
  const A* gain;
  const A* shift;
  std::vector<P> mean, scale, bias;

  PerChannel(const Vector<A>& weight, const Vector<A>& bias, int64_t channels)
      : gain(weight.get()), shift(bias.get()), mean(channels), scale(channels), bias(channels) {}

  void set(int64_t c, Mean<P> m, double rstd) {
    const double exact = rstd * (gain ? double(gain[c]) : 1.0);
    mean[c] = m.mean;
    scale[c] = P(exact);
    bias[c] = P((shift ? double(shift[c]) : 0.0) - double(m.residual) * exact);
  }
};

template <class A>
struct Statistics {
  A *rstd, *mean, *residual, *var;

  Statistics(const Tensor& t, int64_t channels)
      : rstd(t.template mutable_data<A>()),
        mean(rstd + channels),
        residual(mean + channels),
        var(residual + channels) {}

  void set(int64_t c, Mean<A> m, double variance, double rstd_c) {
    mean[c] = m.mean;
    residual[c] = m.residual;
    var[c] = A(variance);
    rstd[c] = A(rstd_c);
  }
};

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
    if (!t.is_contiguous()) dense_ = &copied_.emplace(contiguous(t));
  }
  Saved(const Saved&) = delete;

  const Tensor& get() const { return *dense_; }
  int64_t channels() const { return dense_->sizes()[1]; }

 private:
  const Tensor* dense_;
  std::optional<Tensor> copied_;
};

inline void check_batch(const Tensor& x) {
  STD_TORCH_CHECK(x.is_cpu(), "normkit: input must be on the CPU");
  STD_TORCH_CHECK(x.dim() >= 2, "normkit: input must have at least 2 dimensions");
}

}  // namespace normkit
