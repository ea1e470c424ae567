// The kernels as the operators call them, from several threads at once: each its own range of rows,
// blocks or channels of one input. ThreadSanitizer sees a range that reaches into another's; the
// results must be the bits of a single thread. It does not look into vectors of more than 16 bytes,
// so the portable kernels are the ones to run under it.
#include <functional>
#include <thread>

#include "careful_rows.h"
#include "numbers.h"

namespace normkit::native {
namespace {

constexpr int kThreads = 4;
int64_t calls = 0;

using Range = std::function<void(int64_t begin, int64_t end)>;

void shared_out(int64_t count, const Range& f) {
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back(f, count * t / kThreads, count * (t + 1) / kThreads);
  for (std::thread& t : threads) t.join();
  calls += kThreads;
}

template <class T>
std::vector<T> numbers(int64_t n) {
  Source source{uint64_t(n)};
  std::vector<T> v(n);
  for (T& e : v) e = source.number<T>();
  return v;
}

// run(out) shares out the work that writes `n` elements; alone(out) does it in one call.
template <class T>
void compare(int64_t n, const std::function<Range(T*)>& work, int64_t count, const char* what) {
  std::vector<T> together(n), alone(n);
  shared_out(count, work(together.data()));
  work(alone.data())(0, count);
  if (std::memcmp(together.data(), alone.data(), n * sizeof(T))) fail("%s differs", what);
}

template <class T, class A = accumulate_t<T>>
void rows_of(int64_t rows, int64_t n, Traffic traffic, bool centred) {
  const auto x = numbers<T>(rows * n), grad = numbers<T>(rows * n);
  const auto gain = numbers<A>(n), bias = numbers<A>(n), saved = numbers<A>(3 * rows);
  std::vector<A> statistics(3 * rows);
  const RowStatistics<A> save{&statistics[0], centred ? &statistics[rows] : nullptr,
                              centred ? &statistics[2 * rows] : nullptr, nullptr};
  compare<T>(
      rows * n,
      [&](T* y) {
        const RowForward<T> p{x.data(), n,     y,       gain.data(),         bias.data(),
                              0,        save,  n,       1.0 / double(n),     1e-5,
                              centred,  false, traffic, &careful::forward<T>};
        return [=](int64_t begin, int64_t end) { kernels<T>().row_forward(p, begin, end); };
      },
      rows, "row_forward");

  constexpr int64_t kBlockRows = 3;
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  std::vector<A> partials(2 * blocks * n);
  auto* s = const_cast<A*>(saved.data());  // which a backward pass only reads
  const RowStatistics<A> read{s, centred ? s + rows : nullptr, centred ? s + 2 * rows : nullptr,
                              nullptr};
  compare<T>(
      rows * n,
      [&](T* grad_x) {
        const RowBackward<T> p{grad.data(),
                               n,
                               x.data(),
                               n,
                               gain.data(),
                               gain.data(),
                               0,
                               read,
                               grad_x,
                               rows,
                               n,
                               kBlockRows,
                               n,
                               &partials[0],
                               &partials[blocks * n],
                               1e-5,
                               centred,
                               false,
                               traffic,
                               &careful::backward<T>};
        return [=](int64_t begin, int64_t end) { kernels<T>().row_backward(p, begin, end); };
      },
      blocks, "row_backward");
}

template <class T, class A = accumulate_t<T>>
void planes_of(int64_t samples, int64_t channels, int64_t n, Traffic traffic) {
  const auto x = numbers<T>(samples * channels * n), grad = numbers<T>(samples * channels * n);
  const auto v = numbers<A>(4 * channels);
  const auto at = [&](int i) { return &v[i * channels]; };
  const Hat<const A*> hat{at(0), at(1)};
  const int64_t sample = channels * n;
  const auto box = [=](int64_t count) { return Box{samples, count, n, traffic}; };
  const auto& k = kernels<T>();
  compare<Sums>(
      channels,
      [&](Sums* sums) {
        return [=, &x](int64_t c, int64_t end) {
          k.planar_sums({&x[c * n], sample, n}, box(end - c), at(0) + c, false, sums + c);
        };
      },
      channels, "planar_sums");
  compare<GradientSums>(
      channels,
      [&](GradientSums* sums) {
        return [=, &x, &grad](int64_t c, int64_t end) {
          k.planar_gradient_sums({&grad[c * n], sample, n}, {&x[c * n], sample, n}, box(end - c),
                                 hat.from(c), sums + c);
        };
      },
      channels, "planar_gradient_sums");
  compare<T>(
      samples * sample,
      [&](T* y) {
        return [=, &x](int64_t c, int64_t end) {
          k.planar_apply({&x[c * n], sample, n}, {y + c * n, sample, n}, box(end - c),
                         Apply<const A*>{at(0), at(1), at(2), at(3)}.from(c));
        };
      },
      channels, "planar_apply");
  compare<T>(
      samples * sample,
      [&](T* grad_x) {
        return [=, &x, &grad](int64_t c, int64_t end) {
          k.planar_gradient({&grad[c * n], sample, n}, {&x[c * n], sample, n},
                            {grad_x + c * n, sample, n}, box(end - c),
                            Gradient<const A*>{at(0), at(1), at(2), at(3)}.from(c));
        };
      },
      channels, "planar_gradient");
  std::vector<GradientSums> sums(channels);
  compare<T>(
      samples * sample,
      [&](T* grad_x) {
        return [=, &x, &grad, &sums](int64_t c, int64_t end) {
          k.planar_fixed_gradient({&grad[c * n], sample, n}, {&x[c * n], sample, n},
                                  {grad_x + c * n, sample, n}, box(end - c),
                                  FixedGradient<const A*>{hat, at(2), at(3)}.from(c), &sums[c]);
        };
      },
      channels, "planar_fixed_gradient");
}

template <class T, class A = accumulate_t<T>>
void interleaved_of(int64_t rows, int64_t channels, Traffic traffic) {
  const auto x = numbers<T>(rows * channels), grad = numbers<T>(rows * channels);
  const auto v = numbers<A>(4 * channels);
  const auto at = [&](int i) { return &v[i * channels]; };
  const Hat<const A*> hat{at(0), at(1)};
  const auto& k = kernels<T>();
  constexpr int64_t kBlock = 5;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  const auto span = [=](int64_t b) {
    return Span{std::min(kBlock, rows - b * kBlock), channels, traffic};
  };
  // Each block leaves its sums in a row of its own.
  compare<double>(
      3 * blocks * channels,
      [&](double* sums) {
        return [=, &x](int64_t b, int64_t end) {
          for (; b < end; ++b)
            k.interleaved_sums({&x[b * kBlock * channels], channels}, span(b), at(0), false,
                               sums + b * channels, sums + (blocks + b) * channels,
                               sums + (2 * blocks + b) * channels);
        };
      },
      blocks, "interleaved_sums");
  compare<double>(
      2 * blocks * channels,
      [&](double* sums) {
        return [=, &x, &grad](int64_t b, int64_t end) {
          for (; b < end; ++b)
            k.interleaved_gradient_sums({&grad[b * kBlock * channels], channels},
                                        {&x[b * kBlock * channels], channels}, span(b), hat,
                                        sums + b * channels, sums + (blocks + b) * channels);
        };
      },
      blocks, "interleaved_gradient_sums");
  compare<T>(
      rows * channels,
      [&](T* y) {
        return [=, &x](int64_t b, int64_t end) {
          for (; b < end; ++b)
            k.interleaved_apply({&x[b * kBlock * channels], channels}, y + b * kBlock * channels,
                                span(b), {at(0), at(1), at(2), at(3)});
        };
      },
      blocks, "interleaved_apply");
  compare<T>(
      rows * channels,
      [&](T* grad_x) {
        return [=, &x, &grad](int64_t b, int64_t end) {
          for (; b < end; ++b)
            k.interleaved_gradient(
                {&grad[b * kBlock * channels], channels}, {&x[b * kBlock * channels], channels},
                grad_x + b * kBlock * channels, span(b), {at(0), at(1), at(2), at(3)});
        };
      },
      blocks, "interleaved_gradient");
  std::vector<double> sums(2 * blocks * channels);
  compare<T>(
      rows * channels,
      [&](T* grad_x) {
        return [=, &x, &grad, &sums](int64_t b, int64_t end) {
          for (; b < end; ++b)
            k.interleaved_fixed_gradient(
                {&grad[b * kBlock * channels], channels}, {&x[b * kBlock * channels], channels},
                grad_x + b * kBlock * channels, span(b), {hat, at(2), at(3)}, &sums[b * channels],
                &sums[(blocks + b) * channels]);
        };
      },
      blocks, "interleaved_fixed_gradient");
}

template <class T>
void all_of() {
  for (Traffic traffic : {Traffic::cached, Traffic::streamed})
    for (int64_t n : {1, 3, 7, 16, 31, 33, 64, 100, 513, 1030}) {
      for (int64_t rows : {1, 9, 40})
        for (bool centred : {false, true}) rows_of<T>(rows, n, traffic, centred);
      for (int64_t channels : {1, 5, 70}) planes_of<T>(3, channels, n, traffic);
      for (int64_t rows : {1, 22, 60}) interleaved_of<T>(rows, n, traffic);
    }
}

}  // namespace
}  // namespace normkit::native

int main() {
  using namespace normkit;
  using namespace normkit::native;
  all_of<double>();
  all_of<float>();
  all_of<bfloat16>();
  all_of<float16>();
  std::printf("threads: %s, %lld calls of kernels by %d threads at once\n", instruction_set(),
              (long long)calls, kThreads);
}
