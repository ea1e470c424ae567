"""The norms as functions, with `torch.nn.functional`'s signatures.

Nothing is checked twice: the operators check what their kernels rely on, and only when one refuses
does `normkit._errors` look for the argument to blame and say so in full.

Whether a call is written down to be run elsewhere (`normkit._portable`) is read off two flags of PyTorch's:
an export runs, a model is traced. Its functions that tell take several times as long, and in older versions
`torch.compiler.is_exporting()` is also true where a model is only compiled. Whether the input is on a GPU,
where a call may go past PyTorch's dispatcher, is likewise asked only when a GPU tensor has arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, compiler, fx, is_grad_enabled
from torch._C import _are_functorch_transforms_active, _current_graph_task_id, _is_tracing
from torch._C._functorch import (
    get_unwrapped,
    is_batchedtensor,
    is_functionaltensor,
    is_functorch_wrapped_tensor,
)
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling
from torch.jit import _trace

from normkit import _errors, _portable
from normkit.kernels import gpu, pytorch
from normkit.ops import batch_norm as _batch
from normkit.ops import row_norm as _row
from normkit.recipe import EpsMode


# The graph of `torch.fx.symbolic_trace` shows a norm as one call, as it does PyTorch's.
@fx.wrap
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Layer normalization over the trailing dimensions of each sample.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \, \gamma + \beta, \quad
        \mu = \frac1H \sum_i x_i, \quad \sigma^2 = \frac1H \sum_i (x_i - \mu)^2

    with sums over the H elements of ``normalized_shape``.

    Args:
        input: x, (\*, \*normalized_shape), float64, float32, bfloat16 or float16.
        normalized_shape: the trailing dimensions that share statistics.
        weight: gamma, (\*normalized_shape), of any of these dtypes, or None for 1.
        bias: beta, likewise, or None for 0.
        eps: added to the variance.

    Returns:
        y, with the input's shape and dtype, contiguous.

    Raises:
        ValueError: a shape, device or eps is not as above.
        TypeError: an argument or its dtype is not as above.

    Source: Ba, Kiros & Hinton (2016), https://arxiv.org/abs/1607.06450

    >>> import torch, normkit as nk
    >>> nk.functional.layer_norm(torch.tensor([[1.0, 2.0, 3.0]]), (3,), eps=0.0)
    tensor([[-1.2247,  0.0000,  1.2247]])
    """
    try:
        if compiler._is_exporting_flag or _trace._trace_module_map is not None:
            return _portable.layer_norm(input, normalized_shape, weight, bias, eps)
        trailing = len(normalized_shape)
        # The operator holds weight against input, so one comparison is enough for all three.
        shape = input.shape[-trailing:] if weight is None else weight.shape
        if shape != normalized_shape and shape != tuple(normalized_shape):
            raise RuntimeError("normkit: refused")
        if is_grad_enabled() and (input.requires_grad or _want_grad(weight, bias)):
            if eps is None:
                raise RuntimeError("normkit: refused")
            # Asked here in each norm: a call would take half a microsecond of a small input's forty.
            if (
                is_dynamo_compiling()
                or forward_ad._current_level >= 0
                or _are_functorch_transforms_active()
                or _is_tracing()
            ):
                return _visible_to_pytorch(input, weight, bias, eps, True, trailing)
            if trailing == 1:  # an argument left at its default costs the dispatcher nothing
                return _row.row_norm_with_grad(input, weight, bias, eps, True)
            return _row.row_norm_with_grad(input, weight, bias, eps, True, trailing)
        if forward_ad._current_level >= 0:
            return pytorch.row_norm_formula(input, weight, bias, eps, True, trailing)[0]
        if is_dynamo_compiling():
            operator = _row.layer_norm
        else:
            operator = _row.layer_norm_at_once if gpu.arrived and input.is_cuda else _row.layer_norm_direct
        if trailing == 1:
            return operator(input, weight, bias, eps)
        return operator(input, weight, bias, eps, trailing)
    except _errors.CAUGHT:
        _errors.explain_row_norm(input, normalized_shape, weight, bias, eps)
        raise


@fx.wrap
def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    bias: Tensor | None = None,
    eps_mode: EpsMode = "inside",
    gain_offset: float = 0.0,
) -> Tensor:
    r"""Root-mean-square normalization over the trailing dimensions of each sample.

    .. math::
        y = \hat x \, (c + \gamma) + \beta, \quad
        \hat x = \frac{x}{\sqrt{\tfrac1H \sum_i x_i^2 + \epsilon}} \text{ (inside)} \quad\text{or}\quad
        \hat x = \frac{x}{\sqrt{\tfrac1H \sum_i x_i^2} + \epsilon} \text{ (outside)}

    with sums over the H elements of ``normalized_shape``.

    Args:
        input: x, (\*, \*normalized_shape), float64, float32, bfloat16 or float16.
        normalized_shape: the trailing dimensions that share statistics.
        weight: gamma, (\*normalized_shape), of any of these dtypes, or None for a gain of 1.
        eps: keeps the division finite; None for ``torch.finfo(input.dtype).eps``.
        bias: beta, likewise, or None for 0.
        eps_mode: whether eps stands inside or outside the root.
        gain_offset: c, for weights stored as what the gain has above c; applies to a weight.

    Returns:
        y, with the input's shape and dtype, contiguous.

    Raises:
        ValueError: a shape, device, eps or eps_mode is not as above.
        TypeError: an argument or its dtype is not as above.

    Source: Zhang & Sennrich (2019), https://arxiv.org/abs/1910.07467

    >>> import torch, normkit as nk
    >>> nk.functional.rms_norm(torch.tensor([[3.0, 4.0]]), (2,), eps=0.0)
    tensor([[0.8485, 1.1314]])
    """
    try:
        if compiler._is_exporting_flag or _trace._trace_module_map is not None:
            outside = _errors.is_outside(eps_mode)
            return _portable.rms_norm(input, normalized_shape, weight, bias, eps, outside, gain_offset)
        trailing = len(normalized_shape)
        shape = input.shape[-trailing:] if weight is None else weight.shape
        if shape != normalized_shape and shape != tuple(normalized_shape):
            raise RuntimeError("normkit: refused")
        if gain_offset == 0.0:
            gain_offset = 0.0  # to the compiler a constant, not one more input
        plain = trailing == 1 and eps_mode == "inside" and gain_offset == 0.0
        if is_grad_enabled() and (input.requires_grad or _want_grad(weight, bias)):
            # As in `layer_norm`.
            if (
                is_dynamo_compiling()
                or forward_ad._current_level >= 0
                or _are_functorch_transforms_active()
                or _is_tracing()
            ):
                outside = _errors.is_outside(eps_mode)
                return _visible_to_pytorch(input, weight, bias, eps, False, trailing, outside, gain_offset)
            if plain:
                return _row.row_norm_with_grad(input, weight, bias, eps, False)
            outside = _errors.is_outside(eps_mode)
            return _row.row_norm_with_grad(input, weight, bias, eps, False, trailing, outside, gain_offset)
        if forward_ad._current_level >= 0:
            outside = _errors.is_outside(eps_mode)
            formula = pytorch.row_norm_formula
            return formula(input, weight, bias, eps, False, trailing, outside, gain_offset)[0]
        if is_dynamo_compiling():
            operator = _row.rms_norm
        else:
            operator = _row.rms_norm_at_once if gpu.arrived and input.is_cuda else _row.rms_norm_direct
        if plain:
            return operator(input, weight, bias, eps)
        return operator(input, weight, bias, eps, trailing, _errors.is_outside(eps_mode), gain_offset)
    except _errors.CAUGHT:
        _errors.explain_row_norm(input, normalized_shape, weight, bias, eps, gain_offset, eps_optional=True)
        raise


@fx.wrap
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Batch normalization of each channel over the batch and all positions.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \, \gamma + \beta

    In training mu and sigma^2 are the batch's mean and biased variance over its m values per channel,
    and the running statistics, where given, move towards mu and the unbiased variance,
    ``running = (1 - momentum) * running + momentum * batch``. In inference mu and sigma^2 are the
    running statistics.

    Args:
        input: x, (N, C, \*), float64, float32, bfloat16 or float16.
        running_mean: (C,), changed in training; may be None in training.
        running_var: likewise.
        weight: gamma, (C,), of any of these dtypes, or None for 1.
        bias: beta, likewise, or None for 0.
        training: whether to use the batch's statistics.
        momentum: the share of the new batch in the running statistics.
        eps: added to the variance.

    Returns:
        y, with the input's shape and dtype; channels-last where the input is, else contiguous.
        An empty batch gives an empty result and leaves the running statistics as they are.

    Raises:
        ValueError: a shape, device or eps is not as above, or a training batch has one value per
            channel. The running statistics are then as they were.
        TypeError: an argument or its dtype is not as above.

    Source: Ioffe & Szegedy (2015), https://arxiv.org/abs/1502.03167

    >>> import torch, normkit as nk
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> nk.functional.batch_norm(x, None, None, training=True, eps=0.0)
    tensor([[-1.],
            [ 1.]])
    """
    return tracked_batch_norm(input, running_mean, running_var, None, weight, bias, training, momentum, eps)


def tracked_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """`batch_norm` that also counts batches, as the layers do; a momentum of None averages them all."""
    try:
        tracked = (running_mean, running_var, num_batches_tracked)
        compiling = is_dynamo_compiling()
        if compiler._is_exporting_flag or (not compiling and _is_tracing()):
            return _portable.batch_norm(input, tracked, weight, bias, training, momentum, eps)
        if training:
            surely = not compiling and _batch.may_train(*tracked, input, momentum)
            if not surely and not _errors.may_train(tracked, input, momentum):
                raise RuntimeError("normkit: refused")
            # A forward pass within a backward pass repeats one whose batch was counted (checkpointing).
            if not compiling and _current_graph_task_id() != -1:
                tracked = (None, None, None)
            if compiling or _is_transformed():
                return _train_in_parts(input, tracked, weight, bias, momentum, eps)
            if is_grad_enabled() and (input.requires_grad or _want_grad(weight, bias)):
                return _batch.batch_norm_step_with_grad(input, weight, bias, eps, *tracked, momentum)
            return _batch.batch_norm_step_direct(input, weight, bias, eps, *tracked, momentum)[0]  # type: ignore[no-any-return]
        if running_mean is None or running_var is None or not _errors.are_constants(tracked):
            raise RuntimeError("normkit: refused")
        if _is_transformed():
            return pytorch.batch_norm_formula(input, running_mean, running_var, weight, bias, eps)
        arguments = (input, running_mean, running_var, weight, bias, eps)
        if is_grad_enabled() and (input.requires_grad or _want_grad(weight, bias)):
            if compiling:
                return _batch.batch_norm_fixed(*arguments)[0]
            return _batch.batch_norm_fixed_with_grad(*arguments)
        if compiling:
            return _batch.batch_norm(*arguments)
        operator = _batch.batch_norm_at_once if gpu.arrived and input.is_cuda else _batch.batch_norm_direct
        return operator(*arguments)
    except _errors.CAUGHT:
        _errors.explain_batch_norm(
            input, running_mean, running_var, num_batches_tracked, weight, bias, training, momentum, eps
        )
        raise


def _train_in_parts(
    input: Tensor,
    tracked: tuple[Tensor | None, Tensor | None, Tensor | None],
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """A training step whose parts the compiler, or a transformation, can see."""
    count = _errors.values_per_channel(input)
    if _is_transformed():
        output, statistics = pytorch.batch_norm_train_formula(input, weight, bias, eps)
    else:
        output, statistics = _batch.batch_norm_train(input, weight, bias, eps)
    if count == 0:  # nothing to learn from, but a batch all the same, as PyTorch has it
        tracked = (None, None, tracked[2])
    if any(t is not None for t in tracked):
        plain = pytorch.batch_norm_update_formula
        update = plain if _must_decompose(statistics) else _batch.batch_norm_update
        update(*tracked, statistics.detach(), max(count, 2), momentum)
    return output


def _must_decompose(statistics: Tensor) -> bool:
    """Whether `vmap` or `functionalize` is at work on them.

    PyTorch has no rules of these for an operator of ours that changes what it is given.
    """
    while not is_dynamo_compiling() and is_functorch_wrapped_tensor(statistics):
        if is_batchedtensor(statistics) or is_functionaltensor(statistics):
            return True
        statistics = get_unwrapped(statistics)
    return False


def _want_grad(weight: Tensor | None, bias: Tensor | None) -> bool:
    return (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)


def _is_transformed() -> bool:
    """Whether PyTorch is asked for more than a value or a gradient: forward mode, `torch.func`.

    These go through a formula in its own operators, which it can transform at will.
    """
    return forward_ad._current_level >= 0 or (
        not is_dynamo_compiling() and _are_functorch_transforms_active()
    )


def _visible_to_pytorch(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None, *recipe: Any
) -> Tensor:
    """A row norm with a gradient, for whoever looks into it."""
    if _is_transformed():
        return pytorch.row_norm_formula(input, weight, bias, eps, *recipe)[0]
    # The compiler, and `torch.jit.trace` of a function, want an operator that carries its own formula.
    return _row.row_norm(input, weight, bias, eps, *recipe)[0]
