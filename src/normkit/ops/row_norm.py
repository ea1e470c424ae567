"""Row norms as PyTorch operators: LayerNorm and RMSNorm over the trailing dimensions.

`layer_norm` and `rms_norm` are for inference: they save nothing. `row_norm_fwd` serves both in
training; it also returns ``statistics``, (k, rows) in the accumulation dtype: rstd; then the mean
and what rounding it lost, where centred; then the slope, where eps stands outside the root.
`row_norm_bwd` is its gradient. An eps of None is the input dtype's machine epsilon.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from normkit.kernels import pytorch
from normkit.kernels.pytorch import accumulation_dtype
from normkit.ops._define import Operator, Operators, define, differentiate_again, direct


def _contiguous_like(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_fwd(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    trailing: int,
    centred: bool,
    outside: bool,
    gain_offset: float,
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
    *recipe_and_wanted: Any,
) -> tuple[Tensor, ...]:
    return tuple(
        _contiguous_like(t) if wanted and t is not None else input.new_empty(0)
        for t, wanted in zip((input, weight, bias), recipe_and_wanted[-3:], strict=True)
    )


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
row_norm_fwd: Operators = define(
    "row_norm_fwd(Tensor input, Tensor? weight, Tensor? bias, float? eps, int trailing, bool centred,"
    " bool outside, float gain_offset) -> (Tensor, Tensor)",
    fallback=pytorch.row_norm_fwd,
    fake=_fake_fwd,
)
row_norm_bwd: Operators = define(
    "row_norm_bwd(Tensor grad_output, Tensor input, Tensor statistics, Tensor? weight, Tensor? bias,"
    " int trailing, bool centred, bool outside, float gain_offset, bool input_grad, bool weight_grad,"
    " bool bias_grad) -> (Tensor, Tensor, Tensor)",
    fallback=pytorch.row_norm_bwd,
    fake=_fake_bwd,
)


class RowNorm(torch.autograd.Function):
    """The eager route to a row norm with gradients.

    It does what the operator's own autograd formula does, at half its cost per call, which is most
    of the time a small input takes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float | None,
        trailing: int,
        centred: bool,
        outside: bool,
        gain_offset: float,
    ) -> Tensor:
        output, statistics = row_norm_fwd(input, weight, bias, eps, trailing, centred, outside, gain_offset)
        ctx.save_for_backward(input, weight, bias, statistics)
        ctx.eps, ctx.recipe = eps, (trailing, centred, outside, gain_offset)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad_output)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, weight, bias, ctx.eps, *recipe = inputs
    ctx.save_for_backward(input, weight, bias, output[1])
    ctx.recipe = recipe


def _backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    input, weight, bias, statistics = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph: the gradients will be differentiated
        again = differentiate_again(
            lambda x, w, b: pytorch.row_norm_formula(x, w, b, ctx.eps, *ctx.recipe)[0],
            (input, weight, bias),
            grad_output,
        )
        return (*again, *[None] * 5)
    wanted = ctx.needs_input_grad[:3]
    grads = row_norm_bwd(grad_output, input, statistics, weight, bias, *ctx.recipe, *wanted)
    return (*(g if want else None for g, want in zip(grads, wanted, strict=True)), *[None] * 5)


torch.library.register_autograd("normkit::row_norm_fwd", _backward, setup_context=_setup_context)
