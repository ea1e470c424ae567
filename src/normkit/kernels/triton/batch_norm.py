"""The BatchNorm operators on GPUs, as `normkit.ops.batch_norm` defines them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from normkit.kernels.pytorch import (
    accumulation_dtype,
    batch_norm_update_formula,
    check_channels,
    check_update,
    is_channels_last,
)
from normkit.kernels.triton import batch_norm_kernels as kernels
from normkit.kernels.triton import launch
from normkit.kernels.triton.bound import (
    ACCUMULATE,
    Bound,
    Calls,
    Make,
    bind_add,
    dense,
    in_two,
    kind,
    maker,
    parameter_kind,
)
from normkit.kernels.triton.device import chip_of


class _Layout:
    """How the kernels see a tensor: planes of channels, or positions of all samples and their channels."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.planar = not is_channels_last(x) and math.prod(x.shape[2:]) > 1
        self.channels = x.shape[1]
        self.count = x.numel() // max(1, self.channels)
        self.dtype = accumulation_dtype(x.dtype)
        self.outer = x.shape[0] if self.planar else self.count
        self.inner = math.prod(x.shape[2:]) if self.planar else self.channels
        chip = chip_of(x.device)
        self.how = launch.channels(self.outer, self.inner, self.planar, x.itemsize, chip)
        self.tiles = self.channels if self.planar else triton.cdiv(self.channels, self.how.columns)
        self.each = launch.rows_of_a_part(self.outer, self.tiles, self.planar, self.how)
        self.parts = triton.cdiv(self.outer, self.each)
        # From a row of the kernels to the next, and from a channel to the next, of what we make ourselves.
        self.dense = (self.channels * self.inner, self.inner) if self.planar else (self.channels, 1)

    def strides(self, t: Tensor) -> tuple[int, ...]:
        """Of a tensor whose positions (planar) or channels are adjacent; none where they are not."""
        shape = (self.outer, self.channels, self.inner) if self.planar else (self.outer, self.channels)
        try:
            view = t.view(shape) if self.planar else t.movedim(1, -1).view(shape)
        except RuntimeError:
            return ()
        return (view.stride(0), view.stride(1)) if shape[-1] == 1 or view.stride(-1) == 1 else ()

    def rows(self, kernel: Any, *scalars: Any, by_part: bool = False, **constants: Any) -> Bound:
        """A kernel for all channels, with a program for a part of the rows or for a step of them."""
        pieces = self.parts if by_part else triton.cdiv(self.outer, self.how.rows)
        return Bound(
            kernel, (self.tiles * pieces,), self.x, self.channels, self.outer, self.inner, *scalars,
            warps=self.how.warps, A=ACCUMULATE[self.dtype], PLANAR=self.planar,
            ROWS=self.how.rows, COLUMNS=self.how.columns, **constants,
        )  # fmt: skip

    def per_channel(self, kernel: Any, how: launch.Launch, *scalars: Any) -> Bound:
        """A kernel for a number or a few of each channel."""
        return Bound(
            kernel, (triton.cdiv(self.channels, how.columns),), self.x, self.channels, *scalars,
            warps=how.warps, A=ACCUMULATE[self.dtype], PARTS=how.rows, COLUMNS=how.columns,
        )  # fmt: skip


def _format(x: Tensor) -> torch.memory_format:
    if not is_channels_last(x):
        return torch.contiguous_format
    # PyTorch has no name for the format in more dimensions; preserving that of a dense tensor comes to it.
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim(), torch.preserve_format)


def _legible(layout: _Layout, t: Tensor) -> Tensor:
    """t, or a dense copy where it does not lie as the kernels read it."""
    return (
        t
        if layout.strides(t) or t.numel() == 0
        else torch.empty_like(t, memory_format=_format(layout.x)).copy_(t)
    )


@dataclass(frozen=True, slots=True)
class _Forward:
    """A forward pass of a kind.

    measure: of (input, origins, means, squares, units), and conclude: of those four and (statistics), or of
    (running_mean, running_var, statistics). apply: of (input, output, statistics, weight, bias), or of
    (input, output, running_mean, running_var, weight, bias) where no statistics are kept. make: an output.
    """

    measure: Bound | None
    conclude: Bound
    apply: Bound
    parts: int
    dtype: torch.dtype
    make: Make


_forwards: Calls[_Forward] = Calls()


def _forward(
    input: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    keep: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """With given statistics, or without them the batch's own."""
    key = (kind(input), *map(parameter_kind, (mean, var, weight, bias)), eps, keep)
    call = _forwards.get(key)
    if call is None:
        check_channels(input, mean, var, weight, bias, eps=eps)
        if input.numel() == 0:
            dtype = accumulation_dtype(input.dtype)
            return input.new_empty(input.shape), input.new_zeros((4, input.shape[1]), dtype=dtype)
        layout = _Layout(input)
        x, m, v, w, b = _legible(layout, input), dense(mean), dense(var), dense(weight), dense(bias)
        if x is not input or m is not mean or v is not var or w is not weight or b is not bias:
            return _forward(x, m, v, w, b, eps, keep=keep)
        call = _forwards.keep(key, _plan_forward(layout, eps, mean is not None, keep))
    output = call.make(input)
    if not keep:
        call.apply(input, output, mean, var, weight, bias)
        return output, None
    channels = input.shape[1]
    statistics = torch.empty((4, channels), dtype=call.dtype, device=input.device)
    if call.measure is None:
        call.conclude(mean, var, statistics)
    else:
        means, squares = (statistics.new_empty(call.parts, channels) for _ in range(2))
        origins, units = (statistics.new_empty(channels) for _ in range(2))
        call.measure(input, origins, means, squares, units)
        call.conclude(origins, means, squares, units, statistics)
    call.apply(input, output, statistics, weight, bias)
    return output, statistics


def _plan_forward(layout: _Layout, eps: float, fixed: bool, keep: bool) -> _Forward:
    strides, make = layout.strides(layout.x), maker(layout.x, _format(layout.x))
    apply = layout.rows(kernels.apply, *strides, *layout.dense)
    if not keep:
        apply = layout.rows(kernels.infer, *strides, *layout.dense, *in_two(eps))
    if fixed:
        given = layout.per_channel(kernels.given, launch.PER_CHANNEL, *in_two(eps))
        return _Forward(None, given, apply, 0, layout.dtype, make)
    registers = launch.moments_registers(layout.planar, layout.x.itemsize, chip_of(layout.x.device))
    measure = layout.rows(kernels.moments, *strides, layout.each, eps, by_part=True, registers=registers)
    terms = layout.inner if layout.planar else 1
    conclude = layout.per_channel(
        kernels.conclude, launch.MOMENTS, layout.parts, layout.outer, layout.each, terms, *in_two(eps)
    )
    return _Forward(measure, conclude, apply, layout.parts, layout.dtype, make)


def batch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """BatchNorm with given statistics."""
    return _forward(input, running_mean, running_var, weight, bias, eps, keep=False)[0]


def batch_norm_fixed_fwd(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """BatchNorm with given statistics, and those as the backward pass wants them."""
    output, statistics = _forward(input, running_mean, running_var, weight, bias, eps)
    assert statistics is not None
    return output, statistics


def batch_norm_train_fwd(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """BatchNorm with the batch's statistics, and those."""
    output, statistics = _forward(input, None, None, weight, bias, eps)
    assert statistics is not None
    return output, statistics


def batch_norm_step(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
) -> tuple[Tensor, Tensor]:
    """A training step: the batch's statistics, and the running ones moved towards them."""
    result = batch_norm_train_fwd(input, weight, bias, eps)
    count = input.numel() // max(1, input.shape[1])
    if count == 0:
        running_mean = running_var = None
    if any(t is not None for t in (running_mean, running_var, num_batches_tracked)):
        batch_norm_update(running_mean, running_var, num_batches_tracked, result[1], max(count, 2), momentum)
    return result


def batch_norm_update(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    statistics: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """Move the running statistics towards a batch's. A few numbers per channel: PyTorch's operators do."""
    tracked = (running_mean, running_var, num_batches_tracked)
    check_update(*tracked, statistics, count, momentum)
    batch_norm_update_formula(*tracked, statistics, count, momentum)


@dataclass(frozen=True, slots=True)
class _Backward:
    """A backward pass of a kind.

    sum: of (grad_output, input, statistics, sums, products), `parts` of each, which `add` adds up.
    apply: of (grad_output, input, grad_input, statistics, weight, sum, product).
    """

    sum: Bound | None
    add: Bound | None
    apply: Bound | None
    parts: int
    format: torch.memory_format


_backwards: Calls[_Backward] = Calls()


def batch_norm_bwd(
    grad_output: Tensor,
    input: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    training: bool,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of BatchNorm; an empty tensor for one that is not wanted."""
    weight_grad, bias_grad = weight_grad and weight is not None, bias_grad and bias is not None
    options = (training, input_grad, weight_grad, bias_grad)
    key = (kind(grad_output), kind(input), kind(statistics), kind(weight), kind(bias), options)
    call = _backwards.get(key)
    if call is None:
        if grad_output.shape != input.shape or grad_output.dtype != input.dtype:
            raise RuntimeError("normkit: grad_output must have the input's shape and dtype")
        check_channels(input, weight, bias, eps=eps)
        if input.numel() == 0:
            return _nothing(input, (weight, weight_grad), (bias, bias_grad), input_grad)
        layout = _Layout(input)
        g, x = _legible(layout, grad_output), _legible(layout, input)
        saved, w = statistics.contiguous(), dense(weight)
        if g is not grad_output or x is not input or saved is not statistics or w is not weight:
            return batch_norm_bwd(g, x, saved, w, bias, eps, *options)
        call = _backwards.keep(key, _plan_backward(layout, grad_output, *options))
    total = product = None
    if call.sum is not None:
        sums, products = (statistics.new_empty(call.parts, input.shape[1]) for _ in range(2))
        call.sum(grad_output, input, statistics, sums, products)
        total, product = sums[0], products[0]
        if call.add is not None:
            total, product = (statistics.new_empty(input.shape[1]) for _ in range(2))
            call.add(sums, total, products, product)
    grad_x = torch.empty_like(input, memory_format=call.format) if input_grad else input.new_empty(0)
    if call.apply is not None:
        call.apply(grad_output, input, grad_x, statistics, weight, total, product)
    grad_weight, grad_bias = (
        g.to(p.dtype) if wanted and p is not None and g is not None else input.new_empty(0)
        for g, p, wanted in ((product, weight, weight_grad), (total, bias, bias_grad))
    )
    return grad_x, grad_weight, grad_bias


def _nothing(
    x: Tensor, weight: tuple[Tensor | None, bool], bias: tuple[Tensor | None, bool], input_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients where there is no data: sums of nothing."""
    none = x.new_empty(0)
    grad_weight, grad_bias = (
        none if p is None or not wanted else torch.zeros_like(p) for p, wanted in (weight, bias)
    )
    return x.new_empty(x.shape) if input_grad else none, grad_weight, grad_bias


def _plan_backward(
    layout: _Layout, g: Tensor, training: bool, input_grad: bool, weight_grad: bool, bias_grad: bool
) -> _Backward:
    strides = (*layout.strides(g), *layout.strides(layout.x))
    sums = add = apply = None
    if training or weight_grad or bias_grad:
        sums = layout.rows(kernels.gradient_sums, *strides, layout.each, by_part=True)
        if layout.parts > 1:
            add = bind_add(layout.x, layout.dtype, layout.parts, layout.channels)
    if input_grad:
        scalars = (*strides, *layout.dense, *in_two(1 / layout.count))
        apply = layout.rows(kernels.gradient, *scalars, TRAINING=training)
    return _Backward(sums, add, apply, layout.parts, _format(layout.x))
