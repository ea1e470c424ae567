"""The BatchNorm operators on GPUs, as `normkit.ops.batch_norm` defines them."""

from __future__ import annotations

import math
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
from normkit.kernels.triton.device import chip_of, on
from normkit.kernels.triton.row_norm import ACCUMULATE, add_up, dense, in_two


def _matrix(t: Tensor, planar: bool) -> Tensor:
    """The data as (samples, channels, positions), or as (positions of all samples, channels).

    The last are adjacent; a copy only where they are not.
    """
    view = t.reshape(t.shape[0], t.shape[1], -1) if planar else t.movedim(1, -1).reshape(-1, t.shape[1])
    return view if view.shape[-1] == 1 or view.stride(-1) == 1 else view.contiguous()


def _strides(matrix: Tensor) -> tuple[int, int]:
    """From a row of the kernels to the next, and from a channel to the next."""
    return matrix.stride(0), matrix.stride(1)


def _output(x: Tensor) -> Tensor:
    if not is_channels_last(x):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=last)


class _Job:
    """A tensor as the kernels see it, and how they are launched."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.planar = not is_channels_last(x) and math.prod(x.shape[2:]) > 1
        self.data = _matrix(x, self.planar)
        self.channels = x.shape[1]
        self.dtype = accumulation_dtype(x.dtype)
        self.outer, self.inner = self.data.shape[0], self.data.shape[-1]
        self.how = launch.channels(self.outer, self.inner, self.dtype.itemsize, chip_of(x.device))
        self.tiles = self.channels if self.planar else triton.cdiv(self.channels, self.how.columns)
        self.each = launch.rows_of_a_part(self.outer, self.tiles, self.how)
        self.parts = triton.cdiv(self.outer, self.each)

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.x.device)

    def run(self, kernel: Any, *arguments: Any, by_part: bool, **constants: Any) -> None:
        """Launch it for all channels, with a program for a part of the rows or for a step of them."""
        pieces = self.parts if by_part else triton.cdiv(self.outer, self.how.rows)
        kernel[(self.tiles * pieces,)](
            *arguments, A=ACCUMULATE[self.dtype], PLANAR=self.planar,
            ROWS=self.how.rows, COLUMNS=self.how.columns, num_warps=self.how.warps, **constants,
        )  # fmt: skip

    def per_channel(self, kernel: Any, *arguments: Any) -> None:
        how = launch.PER_CHANNEL
        kernel[(triton.cdiv(self.channels, how.columns),)](
            *arguments, A=ACCUMULATE[self.dtype], COLUMNS=how.columns, num_warps=how.warps
        )

    def batch_statistics(self, eps: float) -> Tensor:
        means, squares = self.empty(self.parts, self.channels), self.empty(self.parts, self.channels)
        origins, statistics = self.empty(self.channels), self.empty(4, self.channels)
        strides = _strides(self.data)
        self.run(
            kernels.moments, self.data, origins, means, squares,
            self.channels, self.outer, self.inner, *strides, self.each, by_part=True,
        )  # fmt: skip
        terms = self.inner if self.planar else 1
        self.per_channel(
            kernels.conclude, origins, means, squares, statistics,
            self.channels, self.parts, self.outer, self.each, terms, *in_two(eps),
        )  # fmt: skip
        return statistics

    def given_statistics(self, mean: Tensor, var: Tensor, eps: float) -> Tensor:
        statistics = self.empty(4, self.channels)
        self.per_channel(
            kernels.given, mean.contiguous(), var.contiguous(), statistics, self.channels, *in_two(eps)
        )
        return statistics

    def apply(self, statistics: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        output = _output(self.x)
        to = _matrix(output, self.planar)
        self.run(
            kernels.apply, self.data, to, statistics, dense(weight), dense(bias),
            self.channels, self.outer, self.inner, *_strides(self.data), *_strides(to), by_part=False,
        )  # fmt: skip
        return output


def batch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """BatchNorm with given statistics."""
    return batch_norm_fixed_fwd(input, running_mean, running_var, weight, bias, eps)[0]


def batch_norm_fixed_fwd(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """BatchNorm with given statistics, and those as the backward pass wants them."""
    check_channels(input, running_mean, running_var, weight, bias, eps=eps)
    if input.shape[1] == 0 or input.numel() == 0:
        return _output(input), input.new_zeros((4, input.shape[1]), dtype=accumulation_dtype(input.dtype))
    with on(input.device):
        job = _Job(input)
        statistics = job.given_statistics(running_mean, running_var, eps)
        return job.apply(statistics, weight, bias), statistics


def batch_norm_train_fwd(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """BatchNorm with the batch's statistics, and those."""
    check_channels(input, weight, bias, eps=eps)
    if input.numel() == 0:
        return _output(input), input.new_zeros((4, input.shape[1]), dtype=accumulation_dtype(input.dtype))
    with on(input.device):
        job = _Job(input)
        statistics = job.batch_statistics(eps)
        return job.apply(statistics, weight, bias), statistics


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
    if grad_output.shape != input.shape or grad_output.dtype != input.dtype:
        raise RuntimeError("normkit: grad_output must have the input's shape and dtype")
    check_channels(input, weight, bias, eps=eps)
    wanted = ((weight, weight_grad), (bias, bias_grad))
    if input.numel() == 0:
        zeros = [p.new_zeros(p.shape) if w and p is not None else input.new_empty(0) for p, w in wanted]
        return _output(input) if input_grad else input.new_empty(0), zeros[0], zeros[1]
    with on(input.device):
        job = _Job(input)
        g = _matrix(grad_output, job.planar)
        statistics = statistics.contiguous()
        products = sums = None
        if training or any(w and p is not None for p, w in wanted):
            sums, products = _gradient_sums(job, g, statistics)
        grad_x = input.new_empty(0)
        if input_grad:
            grad_x = _output(input)
            to = _matrix(grad_x, job.planar)
            job.run(
                kernels.gradient, g, job.data, to, statistics, dense(weight), sums, products,
                job.channels, job.outer, job.inner, *_strides(g), *_strides(job.data), *_strides(to),
                *in_two(job.channels / input.numel()), by_part=False, TRAINING=training,
            )  # fmt: skip
    gradients = [
        total.to(p.dtype) if w and p is not None and total is not None else input.new_empty(0)
        for total, (p, w) in zip((products, sums), wanted, strict=True)
    ]
    return grad_x, gradients[0], gradients[1]


def _gradient_sums(job: _Job, g: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of bias and weight, in the accumulation dtype."""
    sums, products = job.empty(job.parts, job.channels), job.empty(job.parts, job.channels)
    job.run(
        kernels.gradient_sums, g, job.data, statistics, sums, products,
        job.channels, job.outer, job.inner, *_strides(g), *_strides(job.data), job.each, by_part=True,
    )  # fmt: skip
    like = statistics[0]
    return add_up(sums, like), add_up(products, like)
