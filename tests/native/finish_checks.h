// Kernels that work out numbers, one for every channel, and the one that looks for what is not
// finite. What they return is whether all is well: in every case either all is, or a few are made
// to be plainly not.
#pragma once

#include "channel_checks.h"

namespace normkit::native {

template <class T>
void check_all_finite(const Kernels<T>& k, const Case& c, Source& source) {
  Block<T> x(c.n, c.x, c.place);
  source.fill_rows(x, c.n);
  const auto compare = [&] {
    bool all = true;
    for (int64_t i = 0; i < c.n; ++i) all &= bool(std::isfinite(real(x[i])));
    if (k.all_finite(x.data(), c.n) != all) fail("all_finite is not %d", all);
    x.check("x");
  };
  compare();
  if (c.n == 0) return;
  for (int64_t i : {int64_t(0), int64_t(source.below(uint64_t(c.n))), c.n - 1}) {
    const T was = x[i];
    assign(x[i], source.coin() ? NAN : source.coin() ? INFINITY : -INFINITY);
    x.freeze();
    compare();
    x[i] = was;
  }
}

// Which channels are to be plainly unsound.
inline std::vector<bool> choose_unsound(int64_t n, Source& source) {
  std::vector<bool> unsound(n);
  if (source.coin())
    for (int64_t i = 0; i < n; ++i) unsound[i] = source.below(16) == 0;
  return unsound;
}

// Arrays that a kernel fills, whole or in parts.
template <class N>
class Filled {
 public:
  Filled(int arrays, int64_t n, int64_t offset, Place place) {
    for (int i = 0; i < arrays; ++i) blocks_.emplace_back(n, offset, place);
  }
  N* operator[](int i) const { return blocks_[i].data(); }
  void check(const char* what) const {
    for (const auto& b : blocks_) b.check(what);
  }
  void check_same(const Filled& other, const char* what) const {
    for (size_t i = 0; i < blocks_.size(); ++i)
      native::check_same(blocks_[i], other.blocks_[i], what);
  }

 private:
  std::vector<Block<N>> blocks_;
};

// run(to, begin, end) fills [begin, end) and returns whether all is well; so it must be of the
// whole, of two parts and of single channels.
template <class N, class Run>
Filled<N> filled(const Case& c, int arrays, const Run& run, const std::vector<bool>& unsound,
                 const Source& source) {
  Filled<N> whole(arrays, c.n, c.out, c.place), parts(arrays, c.n, c.again, c.place);
  const bool well = run(whole, int64_t(0), c.n);
  whole.check("what is filled");
  bool each = true;
  in_parts(c.n, c.split, [&](int64_t begin, int64_t end) { each &= bool(run(parts, begin, end)); });
  parts.check("what is filled in parts");
  whole.check_same(parts, "whole and in parts");
  if (each != well) fail("whole: %d, in parts: %d", well, each);
  for (int64_t i = 0; !source.wild() && i < c.n; ++i)
    if (run(parts, i, i + 1) == unsound[i]) fail("channel %lld is %d", (long long)i, !unsound[i]);
  const bool right = std::find(unsound.begin(), unsound.end(), true) == unsound.end();
  if (!source.wild() && well != right) fail("all is %d, not %d", well, right);
  return whole;
}

template <class T>
void check_channel_moments(const Kernels<T>& k, const Case& c, Source& source) {
  const double count = double(1 + c.rows);
  const auto unsound = choose_unsound(c.n, source);
  Block<double> sum(c.n, c.x, c.place), squares(c.n, c.grad, c.place);
  Block<double> peak(c.n, c.numbers, c.place);
  for (int64_t i = 0; !source.wild() && i < c.n; ++i) {
    const double mean = unsound[i] ? 1e9 : source.near_one() / 64;
    sum[i] = count * mean;
    squares[i] = count * (1 + std::fabs(source.near_one()) + mean * mean);
    peak[i] = squares[i] / 8;
  }
  for (Block<double>* b : {&sum, &squares, &peak}) source.wild() ? source.fill(*b) : b->freeze();
  const auto run = [&](const Filled<double>& to, int64_t begin, int64_t end) {
    return k.channel_moments({sum.data(), squares.data(), peak.data()}, count, c.eps, c.exact,
                             {to[0], to[1]}, begin, end);
  };
  const auto found = filled<double>(c, 2, run, unsound, source);
  for (const auto* b : {&sum, &squares, &peak}) b->check("sums");
  for (int64_t i = 0; !source.wild() && i < c.n; ++i) {
    const Real mean = sum[i] / Real(count), square = squares[i] / Real(count);
    check_near(found[0][i], mean, std::fabs(mean), 1, "mean", i);
    check_near(found[1][i], std::max(Real(0), square - mean * mean), square, 4, "variance", i);
  }
}

// What the numbers of a channel must be. A number in two parts has the precision of both.
template <class A>
void check_channel_numbers_at(const Case& c, const ChannelSources<A>& from, const Filled<A>& found,
                              int64_t i) {
  constexpr double kBoth = std::max(kEpsilon<A> * kEpsilon<A>, 4 * kEpsilon<double>);
  const Real mean = Real(from.shift[i]) + from.moments.mean[i], var = from.moments.variance[i];
  const Real rstd = 1 / std::sqrt(var + c.eps);
  const Real scale = rstd * (from.weight ? from.weight[i] : 1);
  const Real rest = mean - found[0][i], bias = from.bias ? from.bias[i] : 0;
  check_near(found[0][i], mean, std::fabs(mean), 1, "mean", i);
  const double both = double(found[1][i]) + double(found[2][i]);
  check_within(both, scale, kBoth * std::fabs(scale), "scale", i);
  check_near(found[3][i], bias - rest * scale, std::fabs(bias) + std::fabs(rest * scale), 2, "bias",
             i);
  if (!c.save) return;
  check_near(found[4][i], rstd, rstd, 2, "rstd", i);
  if (found[5][i] != found[0][i]) fail("two means of channel %lld", (long long)i);
  check_within(double(found[6][i]), rest, kEpsilon<A> * std::fabs(rest), "residual", i);
  check_near(found[7][i], var, var, 1, "var", i);
}

template <class T, class A = accumulate_t<T>>
void check_channel_numbers(const Kernels<T>& k, const Case& c, Source& source) {
  const auto unsound = choose_unsound(c.n, source);
  const PerChannel<A, 3> given(c.n, c, source);
  Block<double> mean(c.n, c.x, c.place), var(c.n, c.grad, c.place);
  source.fill(mean);
  source.fill(var, [](double v) { return std::fabs(v); });
  for (int64_t i = 0; i < c.n; ++i)
    if (unsound[i]) mean[i] = 1e300;
  mean.freeze();
  const ChannelSources<A> from{given[0],
                               {mean.data(), var.data()},
                               c.gain ? given[1] : nullptr,
                               c.bias ? given[2] : nullptr,
                               c.eps};
  const auto run = [&](const Filled<A>& to, int64_t begin, int64_t end) {
    ChannelNumbers<A> numbers{{to[0], to[1], to[2], to[3]}, {}};
    if (c.save) numbers.statistics = {to[4], to[5], to[6], to[7]};
    return k.channel_numbers(from, numbers, begin, end);
  };
  const auto found = filled<A>(c, c.save ? 8 : 4, run, unsound, source);
  given.check();
  mean.check("mean");
  var.check("variance");
  for (int64_t i = 0; !source.wild() && i < c.n; ++i)
    if (!unsound[i]) check_channel_numbers_at(c, from, found, i);
}

}  // namespace normkit::native
