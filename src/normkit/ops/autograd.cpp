// The gradients of the norms as nodes of PyTorch's graph. They do what the Functions in row_norm.py
// and batch_norm.py do, where Python alone would take as long as a small input's kernels; what
// these save and when they call the formula stands here once more.
//
// PyTorch's stable C interface has no nodes, so this library, unlike the core, serves the very
// PyTorch and Python it is built with: its name says which, and no others load it.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/library.h>

#include <memory>
#include <string>

#include "eager.h"

namespace normkit::eager {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::CppNode;
using torch::autograd::Function;
using torch::autograd::variable_list;
using WithStatistics = std::tuple<Tensor, Tensor>;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // of input, weight and bias

template <class Signature>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// As PyTorch saves tensors that may be absent.
Tensor to_save(const MaybeTensor& t) { return t.value_or(Tensor()); }
MaybeTensor from_saved(const Tensor& t) { return t.defined() ? MaybeTensor(t) : std::nullopt; }

// What forward(ctx, input, weight, bias, rest) left for the backward pass, and which gradients that
// is asked for. There are none of the rest.
struct Saved {
  explicit Saved(AutogradContext* ctx)
      : tensors(ctx->get_saved_variables()),
        weight(from_saved(tensors[1])),
        bias(from_saved(tensors[2])),
        // PyTorch counts the tensors that were given.
        wants_input(ctx->needs_input_grad(0)),
        wants_weight(weight && ctx->needs_input_grad(1)),
        wants_bias(bias && ctx->needs_input_grad(weight ? 2 : 1)) {}

  const Tensor& input() const { return tensors[0]; }
  const Tensor& statistics() const { return tensors[3]; }

  variable_list wanted(Gradients&& g) const {
    variable_list list(4);
    if (wants_input) list[0] = std::move(std::get<0>(g));
    if (wants_weight) list[1] = std::move(std::get<1>(g));
    if (wants_bias) list[2] = std::move(std::get<2>(g));
    return list;
  }

  const variable_list tensors;
  const MaybeTensor weight, bias;
  const bool wants_input, wants_weight, wants_bias;
};

// ------------------------------------------------------------------ row norms
// eps, centred, trailing, outside, gain_offset
using Recipe = std::tuple<MaybeNumber, bool, int64_t, bool, double>;

struct RowNorm : Function<RowNorm> {
  static constexpr auto kName = "RowNormBackward";

  static Tensor forward(AutogradContext* ctx, const Tensor& input, const MaybeTensor& weight,
                        const MaybeTensor& bias, const Recipe& recipe) {
    static const Operator<WithStatistics(const Tensor&, const MaybeTensor&, const MaybeTensor&,
                                         MaybeNumber, bool, int64_t, bool, double)>
        fwd("normkit::row_norm_fwd", &Entries::row_norm_fwd);
    const at::AutoDispatchBelowAutograd below;
    auto [output, statistics] =
        std::apply([&](auto... r) { return fwd.call(input, weight, bias, r...); }, recipe);
    ctx->save_for_backward({input, to_save(weight), to_save(bias), statistics});
    ctx->saved_data["recipe"] = recipe;
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const Operator<Gradients(const Tensor&, const Tensor&, const Tensor&, const MaybeTensor&,
                                    const MaybeTensor&, MaybeNumber, bool, int64_t, bool, double,
                                    bool, bool, bool)>
        bwd("normkit::row_norm_bwd", &Entries::row_norm_bwd);
    static const auto formula =
        find<Gradients(const Tensor&, const Tensor&, const MaybeTensor&, const MaybeTensor&,
                       MaybeNumber, bool, int64_t, bool, double)>("normkit::row_norm_bwd_formula");
    const Saved saved(ctx);
    const auto call = [&](auto... r) {
      // A graph of the gradient is wanted: the kernels' results have none.
      if (at::GradMode::is_enabled())
        return formula.call(grads[0], saved.input(), saved.weight, saved.bias, r...);
      const at::AutoDispatchBelowAutograd below;
      return bwd.call(grads[0], saved.input(), saved.statistics(), saved.weight, saved.bias, r...,
                      saved.wants_input, saved.wants_weight, saved.wants_bias);
    };
    return saved.wanted(std::apply(call, ctx->saved_data["recipe"].to<Recipe>()));
  }
};

// ------------------------------------------------------------------- BatchNorm
variable_list batch_norm_gradients(AutogradContext* ctx, const Tensor& grad_output, bool training) {
  static const Operator<Gradients(const Tensor&, const Tensor&, const Tensor&, const MaybeTensor&,
                                  const MaybeTensor&, double, bool, bool, bool, bool)>
      bwd("normkit::batch_norm_bwd", &Entries::batch_norm_bwd);
  static const auto formula =
      find<Gradients(const Tensor&, const Tensor&, const MaybeTensor&, const MaybeTensor&,
                     const MaybeTensor&, const MaybeTensor&, double)>(
          "normkit::batch_norm_bwd_formula");
  const Saved saved(ctx);
  const double eps = ctx->saved_data["eps"].toDouble();
  if (at::GradMode::is_enabled()) {
    const MaybeTensor mean = training ? std::nullopt : from_saved(saved.tensors[4]);
    const MaybeTensor var = training ? std::nullopt : from_saved(saved.tensors[5]);
    return saved.wanted(
        formula.call(grad_output, saved.input(), mean, var, saved.weight, saved.bias, eps));
  }
  const at::AutoDispatchBelowAutograd below;
  return saved.wanted(bwd.call(grad_output, saved.input(), saved.statistics(), saved.weight,
                               saved.bias, eps, training, saved.wants_input, saved.wants_weight,
                               saved.wants_bias));
}

// A training step. What it tracks gets no gradient.
struct BatchNormStep : Function<BatchNormStep> {
  static constexpr auto kName = "BatchNormStepBackward";

  struct Tracked {
    const MaybeTensor &mean, &var, &batches;
    MaybeNumber momentum;
    double eps;
  };

  static Tensor forward(AutogradContext* ctx, const Tensor& input, const MaybeTensor& weight,
                        const MaybeTensor& bias, const Tracked& t) {
    static const Operator<WithStatistics(const Tensor&, const MaybeTensor&, const MaybeTensor&,
                                         double, const MaybeTensor&, const MaybeTensor&,
                                         const MaybeTensor&, MaybeNumber)>
        step("normkit::batch_norm_step", &Entries::batch_norm_step);
    const at::AutoDispatchBelowAutograd below;
    auto [output, statistics] =
        step.call(input, weight, bias, t.eps, t.mean, t.var, t.batches, t.momentum);
    ctx->save_for_backward({input, to_save(weight), to_save(bias), statistics});
    ctx->saved_data["eps"] = t.eps;
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return batch_norm_gradients(ctx, grads[0], true);
  }
};

// Given statistics, which are constants.
struct BatchNormFixed : Function<BatchNormFixed> {
  static constexpr auto kName = "BatchNormFixedBackward";

  struct Given {
    const Tensor &mean, &var;
    double eps;
  };

  static Tensor forward(AutogradContext* ctx, const Tensor& input, const MaybeTensor& weight,
                        const MaybeTensor& bias, const Given& given) {
    static const Operator<WithStatistics(const Tensor&, const Tensor&, const Tensor&,
                                         const MaybeTensor&, const MaybeTensor&, double)>
        fwd("normkit::batch_norm_fixed_fwd", &Entries::batch_norm_fixed_fwd);
    const at::AutoDispatchBelowAutograd below;
    auto [output, statistics] = fwd.call(input, given.mean, given.var, weight, bias, given.eps);
    ctx->save_for_backward(
        {input, to_save(weight), to_save(bias), statistics, given.mean, given.var});
    ctx->saved_data["eps"] = given.eps;
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return batch_norm_gradients(ctx, grads[0], false);
  }
};

// ------------------------------------------------------------------- the nodes
// A Function's node that knows its name: PyTorch's own asks the C++ runtime for it at every
// backward pass, for the text of an error, which takes as long as a small kernel.
template <class T>
struct Named : CppNode<T> {
  std::string name() const override { return T::kName; }

  // Which pointer owns a node depends on the version of PyTorch.
  static auto make() {
    if constexpr (std::is_base_of_v<c10::intrusive_ptr_target, Named>)
      return c10::make_intrusive<Named>();
    else
      return std::shared_ptr<Named>(new Named(), [](Named* node) { deleteNode(node); });
  }
};

// Function<T>::apply without a look for outputs that are inputs, of which there are none, and for
// forward mode, which goes another way: that, too, takes as long as a small kernel.
template <class T, class Rest>
Tensor apply(const Tensor& input, const MaybeTensor& weight, const MaybeTensor& bias,
             const Rest& rest) {
  variable_list variables{input};
  if (weight) variables.push_back(*weight);
  if (bias) variables.push_back(*bias);
  const auto node = Named<T>::make();
  node->is_variable_input_ = {true, weight.has_value(), bias.has_value(), false};
  node->set_ctx_grad_fn(node);
  Tensor output;
  {
    const at::AutoGradMode no_grad(false);
    output = T::forward(&node->ctx_, input, weight, bias, rest);
  }
  if (!torch::autograd::compute_requires_grad(input, weight, bias)) return output;
  node->set_next_edges(torch::autograd::collect_next_edges(variables));
  node->output_info_.emplace_back(output);
  set_history(output, node);
  node->save_variables_to_ctx();
  return output;
}

}  // namespace

// --------------------------------------------------------------- the operators
Tensor row_norm_with_grad(const Tensor& input, const MaybeTensor& weight, const MaybeTensor& bias,
                          MaybeNumber eps, bool centred, int64_t trailing, bool outside,
                          double gain_offset) {
  return apply<RowNorm>(input, weight, bias, Recipe{eps, centred, trailing, outside, gain_offset});
}

Tensor batch_norm_step_with_grad(const Tensor& input, const MaybeTensor& weight,
                                 const MaybeTensor& bias, double eps,
                                 const MaybeTensor& running_mean, const MaybeTensor& running_var,
                                 const MaybeTensor& num_batches_tracked, MaybeNumber momentum) {
  return apply<BatchNormStep>(
      input, weight, bias,
      BatchNormStep::Tracked{running_mean, running_var, num_batches_tracked, momentum, eps});
}

Tensor batch_norm_fixed_with_grad(const Tensor& input, const Tensor& running_mean,
                                  const Tensor& running_var, const MaybeTensor& weight,
                                  const MaybeTensor& bias, double eps) {
  return apply<BatchNormFixed>(input, weight, bias,
                               BatchNormFixed::Given{running_mean, running_var, eps});
}

TORCH_LIBRARY_IMPL(normkit, Autograd, m) {
  m.impl("row_norm_with_grad", &row_norm_with_grad);
  m.impl("batch_norm_step_with_grad", &batch_norm_step_with_grad);
  m.impl("batch_norm_fixed_with_grad", &batch_norm_fixed_with_grad);
}

}  // namespace normkit::eager
