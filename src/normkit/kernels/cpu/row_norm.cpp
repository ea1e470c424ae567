// The row-norm operators: LayerNorm and RMSNorm, forward and backward.
//
// statistics, the second result of row_norm_fwd, is (k, rows) in the accumulation dtype:
// rstd; then mean and residual where centred; then slope where eps stands outside the root. A row
// whose rstd is below 0 left the kernels' range, and must be taken care of in the backward pass.
#include <atomic>

#include "careful_rows.h"
#include "entries.h"
#include "tensors.h"

namespace normkit {
namespace {

// x as rows of n adjacent elements, each `stride` after the last; copied where it is not so.
struct Matrix {
  const Tensor* tensor;
  int64_t count, n, stride;

  Matrix(const Tensor& x, const char* name, int64_t trailing) : tensor(&x) {
    STD_TORCH_CHECK(x.is_cpu(), "normkit: ", name, " must be on the CPU");
    const Sizes sizes = x.sizes();
    n = count = 1;
    const int64_t lead = int64_t(sizes.size()) - trailing;
    for (int64_t d = 0; d < int64_t(sizes.size()); ++d) (d < lead ? count : n) *= sizes[d];
    stride = n;
    if (x.is_contiguous() || strided(sizes, x.strides(), lead)) return;
    tensor = &copied_.emplace(contiguous(x));
    stride = n;
  }
  Matrix(const Matrix&) = delete;

 private:
  std::optional<Tensor> copied_;

  bool strided(Sizes sizes, Sizes strides, int64_t lead) {
    int64_t expected = 1;
    for (int64_t d = int64_t(sizes.size()) - 1; d >= lead; --d) {
      if (sizes[d] != 1 && strides[d] != expected) return false;
      expected *= sizes[d];
    }
    bool found = false;
    for (int64_t d = lead - 1; d >= 0; --d) {
      if (sizes[d] == 1) continue;
      if (!found) {
        stride = expected = strides[d];
        found = true;
      }
      if (strides[d] != expected) return false;
      expected *= sizes[d];
    }
    return true;
  }
};

// The input's trailing dimensions that make up a row; a parameter must have just their shape.
void check_parameter(const Tensor* p, const char* name, const Tensor& x, int64_t trailing) {
  if (!p) return;
  const Sizes own = p->sizes(), all = x.sizes();
  STD_TORCH_CHECK(
      p->is_cpu() && std::equal(own.begin(), own.end(), all.end() - trailing, all.end()),
      "normkit: ", name, " must have the shape of the input's normalized dimensions");
  with_type(p->scalar_type(), name, [](auto) {});
}

void check_trailing(const Tensor& x, int64_t trailing) {
  STD_TORCH_CHECK(trailing >= 1 && trailing <= x.dim(), "normkit: trailing must be in [1, ",
                  x.dim(), "]");
}

double machine_epsilon(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return 0x1p-52;
    case ScalarType::BFloat16:
      return 0x1p-7;
    case ScalarType::Half:
      return 0x1p-10;
    default:
      return 0x1p-23;
  }
}

double epsilon(std::optional<double> given, ScalarType type) {
  STD_TORCH_CHECK(!given || *given >= 0, "normkit: eps must not be negative");
  return given.value_or(machine_epsilon(type));
}

// What of the recipe a kernel needs to know.
struct Variant {
  std::optional<double> eps;  // none: the machine epsilon of the input's dtype
  bool centred = false;
  bool outside = false;
  double gain_offset = 0;

  int64_t statistics() const { return 1 + 2 * centred + outside; }
};

template <class A>
RowStatistics<A> views(const Tensor& statistics, int64_t rows, const Variant& v) {
  A* next = statistics.template mutable_data<A>();
  RowStatistics<A> s;
  s.rstd = next;
  if (v.centred) {
    s.mean = next += rows;
    s.residual = next += rows;
  }
  if (v.outside) s.slope = next += rows;
  return s;
}

// Whether kernels of T take parameters as they are: rounding to bfloat16 wants canonical NaNs.
template <class T>
constexpr bool kInPlace = !std::is_same_v<T, bfloat16>;

// Normalises x; keeps the statistics where the backward pass will want them.
Tensor forward(const Tensor& x, const Tensor* weight, const Tensor* bias, int64_t trailing,
               const Variant& v, std::optional<Tensor>* statistics) {
  check_trailing(x, trailing);
  check_parameter(weight, "weight", x, trailing);
  check_parameter(bias, "bias", x, trailing);
  const ScalarType type = x.scalar_type();
  const double eps = epsilon(v.eps, type);
  const Matrix rows(x, "input", trailing);
  Tensor y = empty(x.sizes(), type);
  with_type(type, "input", [&](auto element) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    RowForward<T> p{};
    if (statistics) {
      statistics->emplace(zeros_if(rows.n == 0, {v.statistics(), rows.count}, scalar_type_of<A>()));
      p.save = views<A>(**statistics, rows.count, v);
    }
    if (rows.n == 0) return;
    p.x = rows.tensor->template data<T>();
    p.x_stride = rows.stride;
    p.y = y.template mutable_data<T>();
    p.n = rows.n;
    p.inverse_n = 1.0 / double(rows.n);
    p.eps = eps;
    p.centred = v.centred;
    p.outside = v.outside;
    // In training the backward pass will want as much again in cache.
    const int64_t row = rows.n * int64_t(sizeof(T));
    p.traffic = traffic((statistics ? 4 : 2) * rows.count * row, row);
    p.run = run_for(kernels<T>().run, p.y, rows.n, p.traffic);
    p.careful = &careful::forward<T>;
    const auto kernel = kernels<T>().row_forward;
    // Every thread widens gain and bias for itself: what another core has just written comes
    // slowly. They are looked at before, as an error in a thread loses its text.
    const Dense gain_source(weight), bias_source(bias);
    parallel(rows.count, kTwoPasses * rows.n, p.traffic, [&](int64_t begin, int64_t end) {
      const Vector<A> gain(gain_source.get(), "weight", rows.n, v.gain_offset, kInPlace<T>, p.run);
      const Vector<A> shift(bias_source.get(), "bias", rows.n, 0, kInPlace<T>, p.run);
      std::vector<A> ones;  // a bias without a gain is too rare for a kernel of its own
      if (bias && !weight) ones.assign(rows.n, A(1));
      RowForward<T> own = p;
      own.gain = ones.empty() ? gain.get() : ones.data();
      own.bias = shift.get();
      kernel(own, begin, end);
    });
  });
  return y;
}

Tensor layer_norm(const Tensor& x, const Tensor* weight, const Tensor* bias, double eps,
                  int64_t trailing) {
  return forward(x, weight, bias, trailing, {eps, true}, nullptr);
}

Tensor rms_norm(const Tensor& x, const Tensor* weight, const Tensor* bias,
                std::optional<double> eps, int64_t trailing, bool outside, double gain_offset) {
  return forward(x, weight, bias, trailing, {eps, false, outside, gain_offset}, nullptr);
}

std::tuple<Tensor, Tensor> row_norm_fwd(const Tensor& x, const Tensor* weight, const Tensor* bias,
                                        std::optional<double> eps, bool centred, int64_t trailing,
                                        bool outside, double gain_offset) {
  std::optional<Tensor> statistics;
  Tensor y = forward(x, weight, bias, trailing, {eps, centred, outside, gain_offset}, &statistics);
  return {std::move(y), std::move(*statistics)};
}

// Rows whose weight gradients make one partial sum, in the accumulation dtype: few enough for its
// rounding, many enough for the partials to be little traffic, and a function of the shape alone,
// so that the sum does not depend on the number of threads.
int64_t block_rows(int64_t rows) { return std::clamp<int64_t>(rows / 16, 8, kMostBlockRows); }

// A parameter's gradient: the blocks' partial sums, added in their order in double and rounded once
// to the parameter's dtype. A single block's are the gradient itself.
template <class A>
class ParameterGradient {
 public:
  ParameterGradient(const Tensor* parameter, bool wanted, int64_t blocks, int64_t n,
                    ScalarType otherwise, uintptr_t into_page)
      : wanted_(wanted && parameter),
        blocks_(blocks),
        n_(n),
        grad_(wanted_ ? empty(parameter->sizes(), parameter->scalar_type()) : none(otherwise)) {
    with_type(grad_.scalar_type(), "a parameter", [](auto) {});  // an error had better be seen here
    direct_ = wanted_ && blocks == 1 && grad_.scalar_type() == scalar_type_of<A>();
    // Every partial is cleared by the thread that fills it.
    if (wanted_ && !direct_) partials_ = Lines<A>(blocks * stride(n), into_page);
  }

  A* sums() const { return direct_ ? grad_.template mutable_data<A>() : partials_.get(); }
  // How far a block's lie after those of the last.
  static int64_t stride(int64_t n) { return Lines<A>::stride(n); }
  // Whether they are the gradient itself.
  bool direct() const { return direct_; }

  // Once all partial sums are there: gain's and bias's gradients, in one pass of all threads.
  // run: in which the sums lie apart.
  static std::pair<Tensor, Tensor> finish(ParameterGradient& gain, ParameterGradient& bias,
                                          int64_t run) {
    const int64_t of_gain = gain.tiles(), cost = kTile * std::max<int64_t>(1, gain.blocks_);
    parallel(of_gain + bias.tiles(), cost, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        i < of_gain ? gain.reduce(i * kTile, run) : bias.reduce((i - of_gain) * kTile, run);
    });
    return {std::move(gain.grad_), std::move(bias.grad_)};
  }
  // Whether A held the sums. Of what is finished.
  bool held() const { return held_; }

 private:
  static constexpr int64_t kTile = 512;

  int64_t tiles() const { return wanted_ ? (n_ + kTile - 1) / kTile : 0; }

  void reduce(int64_t i, int64_t run) {
    const int64_t count = std::min(kTile, n_ - i);
    if (direct_) {
      if (!kernels<A>().all_finite(sums() + i, count)) held_ = false;
      return;
    }
    double total[kTile];
    kernels<A>().add_partials(partials_.get() + i, blocks_, stride(n_), count, run != 0, total);
    with_type(grad_.scalar_type(), "a parameter", [&](auto element) {
      auto* out = grad_.template mutable_data<decltype(rounded(element, 0))>() + i;
      for (int64_t j = 0; j < count; ++j) out[j] = rounded(element, total[j]);
    });
    if (!kernels<double>().all_finite(total, count)) held_ = false;
  }

  bool wanted_, direct_;
  std::atomic<bool> held_ = true;
  int64_t blocks_, n_;
  Tensor grad_;
  Lines<A> partials_;
};

// The sums over rows once more, where A did not hold them though it may hold their result.
template <class T>
void redo_sums(const RowBackward<T>& p, const Tensor& grad_gain, const Tensor& grad_bias) {
  const auto x = [&](int64_t r) { return p.x + r * p.x_stride; };
  const auto grad_y = [&](int64_t r) { return p.grad_y + r * p.grad_y_stride; };
  std::vector<careful::Group> groups;
  for (int64_t r = 0; r < p.rows; ++r) {
    if (!kernels<T>().all_finite(x(r), p.n) || !kernels<T>().all_finite(grad_y(r), p.n)) return;
    groups.push_back(careful::measured(p.n, [&](int64_t i) { return element(x(r) + i); },
                                       {p.eps, p.centred, p.outside}));
  }
  const auto redo = [&](const Tensor& grad, bool by_x_hat) {
    if (grad.numel() != p.n) return;  // not wanted
    fill(grad, p.n, [&](int64_t i) {
      return careful::total(
          p.rows, [&](int64_t r) { return element(grad_y(r) + i); },
          [&](int64_t r) { return by_x_hat ? groups[r].x_hat(element(x(r) + i)) : 1.0; });
    });
  };
  redo(grad_gain, true);
  redo(grad_bias, false);
}

// Past the cache rows are cut where lines of grad_x begin. Where that is at no multiple of 8
// columns, half of the vectors of the weights' sums lie on two lines, which costs more than is won
// until x, grad_y and grad_x fill the cache, and always where numbers lie apart, which they can't
// in rows cut so. (8: measured with AVX2.)
template <class T>
Traffic backward_traffic(int64_t rows, int64_t n) {
  constexpr int64_t kVector = 8;
  const int64_t row = n * int64_t(sizeof(T)), bytes = rows * row;
  if (n % kVector == 0) return traffic(4 * bytes, row);  // whoever comes next reads grad_x
  return kernels<T>().run ? Traffic::cached : traffic(2 * bytes, row);
}

std::tuple<Tensor, Tensor, Tensor> row_norm_bwd(const Tensor& grad_y, const Tensor& x,
                                                const Tensor& statistics, const Tensor* weight,
                                                const Tensor* bias, std::optional<double> eps,
                                                bool centred, int64_t trailing, bool outside,
                                                double gain_offset, bool input_grad,
                                                bool weight_grad, bool bias_grad) {
  const Variant v{0, centred, outside, gain_offset};
  const ScalarType type = x.scalar_type();
  check_trailing(x, trailing);
  check_parameter(weight, "weight", x, trailing);
  check_parameter(bias, "bias", x, trailing);
  STD_TORCH_CHECK(grad_y.scalar_type() == type && same_sizes(grad_y, x),
                  "normkit: grad_output must have the input's shape and dtype");
  const Matrix rows(x, "input", trailing);
  const Matrix grad_rows(grad_y, "grad_output", trailing);
  const int64_t per_block = block_rows(rows.count);
  const int64_t blocks = rows.n == 0 ? 0 : (rows.count + per_block - 1) / per_block;
  return with_type(type, "input", [&](auto element) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    STD_TORCH_CHECK(
        statistics.is_cpu() && statistics.dim() == 2 && statistics.sizes()[0] == v.statistics() &&
            statistics.sizes()[1] == rows.count && statistics.scalar_type() == scalar_type_of<A>(),
        "normkit: statistics are not those of the input");
    Tensor grad_x = input_grad ? empty(x.sizes(), type) : none(type);
    // What a kernel goes through at once, wide apart within their pages.
    const auto beside = reinterpret_cast<uintptr_t>(rows.tensor->template data<T>());
    ParameterGradient<A> grad_gain(weight, weight_grad, blocks, rows.n, type, beside + 1024);
    ParameterGradient<A> grad_bias(bias, bias_grad, blocks, rows.n, type, beside + 2048);
    const Dense saved(&statistics);
    RowBackward<T> p{};
    p.grad_y = grad_rows.tensor->template data<T>();
    p.grad_y_stride = grad_rows.stride;
    p.x = rows.tensor->template data<T>();
    p.x_stride = rows.stride;
    p.saved = views<A>(*saved.get(), rows.count, v);
    p.grad_x = input_grad ? grad_x.template mutable_data<T>() : nullptr;
    p.rows = rows.count;
    p.n = rows.n;
    p.block_rows = per_block;
    p.partial_stride = grad_gain.stride(rows.n);
    p.grad_gain = grad_gain.sums();
    p.grad_bias = grad_bias.sums();
    p.traffic = backward_traffic<T>(rows.count, rows.n);
    const int64_t own_run = kernels<T>().run;
    p.run = grad_gain.direct() || grad_bias.direct()
                ? 0
                : run_for(own_run, p.grad_x, rows.n, p.traffic);
    p.eps = epsilon(eps, type);
    p.centred = centred;
    p.outside = outside;
    p.careful = &careful::backward<T>;
    const auto kernel = kernels<T>().row_backward;
    const Dense gain_source(weight);
    parallel(blocks, kTwoPasses * per_block * rows.n, p.traffic, [&](int64_t begin, int64_t end) {
      const Vector<A> gain(gain_source.get(), "weight", rows.n, gain_offset, kInPlace<T>, p.run);
      std::optional<Vector<A>> for_sums;
      if (p.run != own_run)
        for_sums.emplace(gain_source.get(), "weight", rows.n, gain_offset, kInPlace<T>, own_run);
      RowBackward<T> own = p;
      own.gain = gain.get();
      own.gain_for_sums = for_sums ? for_sums->get() : gain.get();
      kernel(own, begin, end);
    });
    auto [gain_grad, bias_grad] = ParameterGradient<A>::finish(grad_gain, grad_bias, p.run);
    std::tuple result{std::move(grad_x), std::move(gain_grad), std::move(bias_grad)};
    if (!grad_gain.held() || !grad_bias.held())
      redo_sums(p, std::get<1>(result), std::get<2>(result));
    return result;
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkit, CPU, m) {
  m.impl("layer_norm", &Boxed<layer_norm>::call);
  m.impl("rms_norm", &Boxed<rms_norm>::call);
  m.impl("row_norm", &Boxed<row_norm_fwd>::call);
  m.impl("row_norm_fwd", &Boxed<row_norm_fwd>::call);
  m.impl("row_norm_bwd", &Boxed<row_norm_bwd>::call);
}

void add_row_norm(Entries& to) {
  to.layer_norm = &Direct<layer_norm>::call;
  to.rms_norm = &Direct<rms_norm>::call;
  to.row_norm_fwd = &Direct<row_norm_fwd>::call;
  to.row_norm_bwd = &Direct<row_norm_bwd>::call;
}

}  // namespace normkit
