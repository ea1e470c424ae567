// The update of BatchNorm's running statistics.
#include "batch_norm.h"

namespace normkit {
namespace {

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

}  // namespace

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
    const auto s = statistics_of<A>(saved.get(), channels);
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

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("batch_norm_update", &Boxed<batch_norm_update>::call);
}

}  // namespace normkit
