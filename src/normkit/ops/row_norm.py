"""Row norms as PyTorch operators: LayerNorm and RMSNorm over the trailing dimensions.

`layer_norm` and `rms_norm` are for inference: they save nothing. `row_norm_fwd` serves both in
training; it also returns ``statistics``, (k, rows) in the accumulation dtype: rstd; then the mean
and what rounding it lost, where centred; then the slope, where eps stands outside the root.
`row_norm_bwd` is its gradient. An eps of None is the input dtype's machine epsilon.

Arguments that most calls leave at their defaults stand last: an argument not given costs nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from normkit.kernels import pytorch
from normkit.kernels.pytorch import accumulation_dtype
from normkit.ops._define import (
    Operator,
    Operators,
    at_once,
    define,
    define_again,
    differentiate_again,
    direct,
    with_gradient,
)


def _contiguous_like(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_fwd(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    centred: bool,
    trailing: int = 1,
    outside: bool = False,
    gain_offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    rows = math.prod(input.shape[: input.dim() - trailing])
    kept = (1 + 2 * centred + outside, rows)
    return _contiguous_like(input), input.new_empty(kept, dtype=accumulation_dtype(input.dtype))


def _fake_bwd(
    grad_output: Tensor,
    input: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    centred: bool,
    trailing: int = 1,
    outside: bool = False,
    gain_offset: float = 0.0,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Tensor, ...]:
    wanted = ((input, input_grad), (weight, weight_grad), (bias, bias_grad))
    return tuple(_contiguous_like(t) if want and t is not None else input.new_empty(0) for t, want in wanted)


layer_norm: Operator = define(
    "layer_norm(Tensor input, Tensor? weight, Tensor? bias, float eps, int trailing=1) -> Tensor",
    fallback=pytorch.layer_norm,
    fake=_contiguous_like,
)
rms_norm: Operator = define(
    "rms_norm(Tensor input, Tensor? weight, Tensor? bias, float? eps, int trailing=1,"
    " bool outside=False, float gain_offset=0.0) -> Tensor",
    fallback=pytorch.rms_norm,
    fake=_contiguous_like,
)
layer_norm_direct: Operator = direct(layer_norm)
rms_norm_direct: Operator = direct(rms_norm)
layer_norm_at_once: Operator = at_once(layer_norm)
rms_norm_at_once: Operator = at_once(rms_norm)
_INPUTS = (
    "(Tensor input, Tensor? weight, Tensor? bias, float? eps, bool centred, int trailing=1,"
    " bool outside=False, float gain_offset=0.0)"
)
_FWD = _INPUTS + " -> (Tensor, Tensor)"
row_norm_fwd: Operators = define("row_norm_fwd" + _FWD, fallback=pytorch.row_norm_fwd, fake=_fake_fwd)
row_norm_bwd: Operators = define(
    "row_norm_bwd(Tensor grad_output, Tensor input, Tensor statistics, Tensor? weight, Tensor? bias,"
    " float? eps, bool centred, int trailing=1, bool outside=False, float gain_offset=0.0,"
    " bool input_grad=True, bool weight_grad=True, bool bias_grad=True) -> (Tensor, Tensor, Tensor)",
    fallback=pytorch.row_norm_bwd,
    fake=_fake_bwd,
)
# The same operator with a gradient that the compiler can see. Not the same as the plain one: PyTorch
# would then ask in Python at each eager call whether a gradient is wanted.
row_norm: Operators = define("row_norm" + _FWD, fallback=pytorch.row_norm_fwd, fake=_fake_fwd)
_fwd_direct: Operators = direct(row_norm_fwd)
_bwd_direct: Operators = direct(row_norm_bwd)


class RowNorm(torch.autograd.Function):
    """The eager route to a row norm with gradients.

    It does what `row_norm`'s own autograd formula does, at half its cost per call, which is most of
    the time a small input takes; a node in C++, where there is one, takes less still. ``recipe`` holds
    the arguments after ``eps``, as many as are not at their defaults.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float | None,
        *recipe: Any,
    ) -> Tensor:
        output, statistics = _fwd_direct(input, weight, bias, eps, *recipe)
        ctx.save_for_backward(input, weight, bias, statistics)
        ctx.eps, ctx.recipe = eps, recipe
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return _registered_backward(ctx, grad_output)


row_norm_with_grad: Operator = with_gradient(f"row_norm_with_grad{_INPUTS} -> Tensor", RowNorm, _fwd_direct)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, weight, bias, ctx.eps, *recipe = inputs
    ctx.save_for_backward(input, weight, bias, output[1])
    ctx.recipe = recipe


def _registered_backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(ctx, grad_output), *[None] * (1 + len(ctx.recipe)))


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    input, weight, bias, statistics = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph: the gradients will be differentiated
        return _differentiate_again(grad_output, input, weight, bias, ctx.eps, *ctx.recipe)
    x, w, b = ctx.needs_input_grad[:3]
    if x and (w or weight is None) and (b or bias is None):
        grads = _bwd_direct(grad_output, input, statistics, weight, bias, ctx.eps, *ctx.recipe)
    else:
        recipe = (*ctx.recipe, *_DEFAULTS[len(ctx.recipe) :])
        grads = _bwd_direct(grad_output, input, statistics, weight, bias, ctx.eps, *recipe, x, w, b)
    return grads[0] if x else None, grads[1] if w else None, grads[2] if b else None


def _differentiate_again(
    grad_output: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, *recipe: Any
) -> tuple[Tensor | None, ...]:
    def formula(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return pytorch.row_norm_formula(x, w, b, *recipe)[0]

    return differentiate_again(formula, (input, weight, bias), grad_output)


_DEFAULTS = (None, 1, False, 0.0)  # of centred (none), trailing, outside, gain_offset

define_again(
    f"row_norm_bwd_formula(Tensor grad_output, {_INPUTS[1:]} -> (Tensor, Tensor, Tensor)",
    _differentiate_again,
)
torch.library.register_autograd("normkit::row_norm", _registered_backward, setup_context=_setup_context)
