// Operators of `normkit bench`: the least memory traffic of a norm, on the same threads and the
// same instruction set. They take any dense tensors as bytes.
#include <atomic>

#include "tensors.h"

namespace normkit {
namespace {

// Floats that a loop of theirs handles at once; a share per thread is a multiple of it.
constexpr int64_t kLine = 64;

int64_t floats(const Tensor& t) { return t.numel() * t.element_size() / int64_t(sizeof(float)); }

const float* begin_of(const Tensor& t) { return reinterpret_cast<const float*>(t.data<char>()); }

template <class F>
void by_lines(int64_t n, Traffic traffic, const F& f) {
  parallel(n / kLine, kLine, traffic,
           [&](int64_t begin, int64_t end) { f(begin * kLine, (end - begin) * kLine); });
}

void check_target(const Tensor& target, int64_t n, bool stream) {
  STD_TORCH_CHECK(floats(target) == n, "normkit: both tensors must be of one size");
  STD_TORCH_CHECK(!stream || reinterpret_cast<uintptr_t>(begin_of(target)) % 64 == 0,
                  "normkit: streaming stores need a target aligned to 64 bytes");
}

void floor_copy(const Tensor& source, const Tensor& target, bool stream) {
  const int64_t n = floats(source);
  check_target(target, n, stream);
  const Traffic way = stream ? Traffic::streamed : Traffic::cached;
  const float* from = begin_of(source);
  float* to = reinterpret_cast<float*>(target.mutable_data<char>());
  by_lines(n, way,
           [&](int64_t i, int64_t count) { floor_kernels().copy(from + i, to + i, count, way); });
}

void floor_triad(const Tensor& a, const Tensor& b, const Tensor& target, bool stream) {
  const int64_t n = floats(a);
  check_target(b, n, false);
  check_target(target, n, stream);
  const Traffic way = stream ? Traffic::streamed : Traffic::cached;
  const float *x = begin_of(a), *y = begin_of(b);
  float* to = reinterpret_cast<float*>(target.mutable_data<char>());
  by_lines(n, way, [&](int64_t i, int64_t count) {
    floor_kernels().triad(x + i, y + i, to + i, count, way);
  });
}

// What a read leaves behind, so that the compiler can't leave it out.
std::atomic<double> unread;

void floor_read(const Tensor& a) {
  const float* x = begin_of(a);
  by_lines(floats(a), Traffic::cached, [&](int64_t i, int64_t count) {
    unread.store(floor_kernels().read(x + i, count), std::memory_order_relaxed);
  });
}

void floor_read2(const Tensor& a, const Tensor& b) {
  check_target(b, floats(a), false);
  const float *x = begin_of(a), *y = begin_of(b);
  by_lines(floats(a), Traffic::cached, [&](int64_t i, int64_t count) {
    unread.store(floor_kernels().read2(x + i, y + i, count), std::memory_order_relaxed);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("floor_copy", &Boxed<floor_copy>::call);
  m.impl("floor_triad", &Boxed<floor_triad>::call);
  m.impl("floor_read", &Boxed<floor_read>::call);
  m.impl("floor_read2", &Boxed<floor_read2>::call);
}

}  // namespace normkit
