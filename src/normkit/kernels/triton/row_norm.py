"""The row-norm operators on GPUs, as `normkit.ops.row_norm` defines them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from normkit.kernels.pytorch import accumulation_dtype, check_rows
from normkit.kernels.triton import launch, row_norm_kernels, wide_row_gradients, wide_row_kernels
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


def forget() -> None:
    """Decide anew from now on: launch choices have changed."""
    _forwards.clear()
    _backwards.clear()


def layer_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, trailing: int = 1
) -> Tensor:
    """LayerNorm, saving nothing."""
    if eps is None:  # which the dispatcher refuses where it is asked
        raise RuntimeError("normkit: layer_norm has no eps of its own")
    return _forward(input, weight, bias, eps, True, trailing, False, 0.0, keep=False)[0]


def rms_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    trailing: int = 1,
    outside: bool = False,
    gain_offset: float = 0.0,
) -> Tensor:
    """RMSNorm, saving nothing."""
    return _forward(input, weight, bias, eps, False, trailing, outside, gain_offset, keep=False)[0]


def row_norm_fwd(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    centred: bool,
    trailing: int = 1,
    outside: bool = False,
    gain_offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """A row norm and its statistics."""
    output, statistics = _forward(
        input, weight, bias, eps, centred, trailing, outside, gain_offset, keep=True
    )
    assert statistics is not None
    return output, statistics


@dataclass(frozen=True, slots=True)
class _Forward:
    """A forward pass of a kind.

    launches: of (input, output, weight, bias, statistics), and words where rows are wide. make: an output.
    statistics, words: their shapes. dtype: of the statistics. pairs: whether two numbers are read as one.
    """

    launches: tuple[Bound, ...]
    make: Make
    statistics: tuple[int, int]
    words: tuple[int, int, int] | None
    dtype: torch.dtype
    pairs: bool = False


_forwards: Calls[_Forward] = Calls()


def _forward(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    centred: bool,
    trailing: int,
    outside: bool,
    gain_offset: float,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    options = (eps, centred, trailing, outside, gain_offset, keep)
    key = (kind(input), parameter_kind(weight), parameter_kind(bias), options)
    call = _forwards.get(key)
    if call is None:
        if eps is None:
            eps = torch.finfo(input.dtype).eps
        check_rows(input, weight, bias, eps, trailing)
        x, w, b = _legible(input, trailing), dense(weight), dense(bias)
        if x is not input or w is not weight or b is not bias:
            return _forward(x, w, b, eps, centred, trailing, outside, gain_offset, keep=keep)
        call = _forwards.keep(key, _plan_forward(input, eps, centred, trailing, outside, gain_offset))
    if call.pairs and _lies_apart(trailing, input):
        x = input.clone(memory_format=torch.contiguous_format)
        return _forward(x, weight, bias, eps, centred, trailing, outside, gain_offset, keep=keep)
    output = call.make(input)
    statistics = None
    if keep:
        make = torch.empty if call.launches else torch.zeros
        statistics = make(call.statistics, dtype=call.dtype, device=input.device)
    tensors: tuple[Tensor | None, ...] = (input, output, weight, bias, statistics)
    if call.words is not None:
        tensors += (_words(call.words, call.dtype, input.device),)
    for launched in call.launches:
        launched(*tensors)
    return output, statistics


def _words(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room for numbers that programs tell each other, none of which is there yet."""
    return torch.full(shape, -1, dtype=_BITS[dtype], device=device)


_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


def _plan_forward(
    x: Tensor, eps: float, centred: bool, trailing: int, outside: bool, gain_offset: float
) -> _Forward:
    rows, n = _size(x, trailing)
    dtype = accumulation_dtype(x.dtype)
    shape, make = (1 + 2 * centred + outside, rows), maker(x, torch.contiguous_format)
    if x.numel() == 0:
        return _Forward((), make, shape, None, dtype)
    chip = chip_of(x.device)
    stride = _row_stride(x, trailing)
    scalars = (*in_two(eps), *in_two(gain_offset))
    recipe = {"A": ACCUMULATE[dtype], "CENTRED": centred, "OUTSIDE": outside, "OFFSET": gain_offset != 0}
    how = launch.row_forward(n, dtype.itemsize, chip, x.itemsize, centred)
    if how is not None:
        ahead = launch.reads_ahead(how, centred, x.itemsize, chip)
        each = launch.rows_ahead(rows, how, chip) if ahead else how.rows
        held = Bound(
            row_norm_kernels.forward, (triton.cdiv(rows, each),), x, rows, n, stride, *scalars, each,
            warps=how.warps, registers=launch.most_registers(how, chip),
            FULL=n == how.columns, ROWS=how.rows, COLUMNS=how.columns, AHEAD=ahead, **recipe,
        )  # fmt: skip
        return _Forward((held,), make, shape, None, dtype)
    shared = launch.shared_rows("forward", rows, n, x.itemsize, centred, chip)
    slabs, groups, numbers = shared.slabs, shared.groups, 6 if centred else 3
    pairs = launch.in_pairs(x.itemsize, n) and groups > 0  # else no kernel reads them
    k = wide_row_kernels
    wide = tuple(
        Bound(
            kernel, (slabs * (groups if kernel is k.forward else rows),), x,
            rows, n, slabs, groups, stride, *scalars,
            NUMBERS=numbers, PAIRS=pairs, **_options(shared, n, kernel is k.forward), **recipe,
        )
        for kernel in _steps(shared, k.forward, k.measure, k.finish)
    )  # fmt: skip
    return _Forward(wide, make, shape, (rows, numbers, slabs), dtype, pairs)


def _steps(shared: launch.Shared, together: Any, measure: Any, finish: Any) -> tuple[Any, ...]:
    """The kernels of a pass over wide rows, one after the other."""
    return (together,) if shared.groups else (measure, finish)


def _options(shared: launch.Shared, n: int, waiting: bool) -> dict[str, Any]:
    """What these are given by name in both directions. waiting: whether a kernel's programs do."""
    options = {"warps": shared.warps, "waiting": waiting, "registers": shared.registers if waiting else 0}
    slabs = {"FULL": n % shared.columns == 0, "COLUMNS": shared.columns, "SLABS": shared.most_slabs}
    return {**options, **slabs, "LEAD": shared.ahead, "PREFETCH": shared.prefetch}


def _lies_apart(trailing: int, *tensors: Tensor) -> bool:
    """Whether for all that Triton knows rows of one begin elsewhere than at multiples of 16 bytes."""
    return any(
        t.data_ptr() % 16 or (not t.is_contiguous() and (_row_stride(t, trailing) or 0) % 16) for t in tensors
    )


@dataclass(frozen=True, slots=True)
class _Backward:
    """A backward pass of a kind.

    launches: of (grad_output, input, statistics, weight, grad_input, weight's sums, bias's sums), and words
    and pairs as above. sums: how many partial sums there are; one is the gradient. add: adds them up.
    """

    launches: tuple[Bound, ...]
    sums: int
    add: Bound | None
    words: tuple[int, int, int] | None
    pairs: bool = False


_backwards: Calls[_Backward] = Calls()


def row_norm_bwd(
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
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a row norm; an empty tensor for one that is not wanted."""
    weight_grad, bias_grad = weight_grad and weight is not None, bias_grad and bias is not None
    options = (centred, trailing, outside, gain_offset, input_grad, weight_grad, bias_grad)
    key = (kind(grad_output), kind(input), kind(statistics), kind(weight), kind(bias), options)
    call = _backwards.get(key)
    if call is None:
        _check_backward(grad_output, input, statistics, weight, bias, centred, trailing, outside)
        g, x = _legible(grad_output, trailing), _legible(input, trailing)
        saved, w = statistics.contiguous(), dense(weight)
        if g is not grad_output or x is not input or saved is not statistics or w is not weight:
            return row_norm_bwd(g, x, saved, w, bias, eps, *options)
        call = _backwards.keep(key, _plan_backward(grad_output, input, *options))
    if call.pairs and _lies_apart(trailing, grad_output, input):
        g, x = (t.clone(memory_format=torch.contiguous_format) for t in (grad_output, input))
        return row_norm_bwd(g, x, statistics, weight, bias, eps, *options)
    grad_x, gain, shift = _new(input, input_grad), _new(weight, weight_grad), _new(bias, bias_grad)
    gains, shifts = gain, shift
    if call.sums > 1:
        gains, shifts = (
            p if p is None else statistics.new_empty(call.sums, p.numel()) for p in (gain, shift)
        )
    tensors: tuple[Tensor | None, ...] = (grad_output, input, statistics, weight, grad_x, gains, shifts)
    if call.words is not None:
        tensors += (_words(call.words, statistics.dtype, input.device),)
    for launched in call.launches:
        launched(*tensors)
    if call.add is not None:
        call.add(gains, gain, shifts, shift)
    if call.sums == 0:
        for p in (gain, shift):
            if p is not None:
                p.zero_()
    none = input.new_empty(0)
    return (
        none if grad_x is None else grad_x,
        none if gain is None else gain,
        none if shift is None else shift,
    )


def _check_backward(
    grad_output: Tensor,
    input: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    centred: bool,
    trailing: int,
    outside: bool,
) -> None:
    if grad_output.shape != input.shape or grad_output.dtype != input.dtype:
        raise RuntimeError("normkit: grad_output must have the input's shape and dtype")
    check_rows(input, weight, bias, 0.0, trailing)
    rows, _ = _size(input, trailing)
    dtype = accumulation_dtype(input.dtype)
    if statistics.shape != (1 + 2 * centred + outside, rows) or statistics.dtype != dtype:
        raise RuntimeError("normkit: statistics are not those of the input")


def _plan_backward(
    g: Tensor,
    x: Tensor,
    centred: bool,
    trailing: int,
    outside: bool,
    gain_offset: float,
    input_grad: bool,
    weight_grad: bool,
    bias_grad: bool,
) -> _Backward:
    rows, n = _size(x, trailing)
    if x.numel() == 0:
        return _Backward((), 0, None, None)
    dtype, chip, summed = accumulation_dtype(x.dtype), chip_of(x.device), weight_grad or bias_grad
    strides = (_row_stride(g, trailing), _row_stride(x, trailing))
    recipe = {"A": ACCUMULATE[dtype], "CENTRED": centred, "OUTSIDE": outside, "OFFSET": gain_offset != 0}
    how = launch.row_backward(n, dtype.itemsize, chip)
    if how is not None:
        each = launch.rows_each(rows, how, summed)
        count = triton.cdiv(rows, each) if summed else 1
        held = Bound(
            row_norm_kernels.backward, (triton.cdiv(rows, each),), x,
            rows, n, *strides, *in_two(gain_offset), each,
            warps=how.warps, FULL=n == how.columns, ROWS=how.rows, COLUMNS=how.columns,
            STAGES=launch.stages(how, x.itemsize, chip), **recipe,
        )  # fmt: skip
        return _Backward((held,), count, _adding(x, dtype, count, n), None)
    shared = launch.shared_rows("backward", rows, n, x.itemsize, centred, chip)
    slabs, numbers = shared.slabs, 2 if centred else 1
    pairs = launch.in_pairs(x.itemsize, n) and shared.groups > 0 and input_grad
    parts = launch.wide_parts(rows, n, x.itemsize, centred, chip.warp) if summed else shared.groups or rows
    # Parts that a launch can have running at a time, where their programs wait.
    together = min(shared.groups, parts) if shared.groups and input_grad else parts
    k = wide_row_gradients
    # Without the input's gradient there is nothing to measure.
    steps = _steps(shared, k.backward, k.measure, k.finish) if input_grad else (k.finish,)
    wide = tuple(
        Bound(
            kernel, (slabs * min(together, parts - first),), x,
            rows, n, slabs, first, parts, *strides, *in_two(gain_offset),
            NUMBERS=numbers, PAIRS=pairs, **_options(shared, n, kernel is k.backward), **recipe,
        )
        for first in range(0, parts, together)
        for kernel in steps
    )  # fmt: skip
    count = parts if summed else 1
    words = (rows, numbers, slabs) if input_grad else (0, 0, 0)
    return _Backward(wide, count, _adding(x, dtype, count, n), words, pairs)


def _adding(x: Tensor, dtype: torch.dtype, count: int, n: int) -> Bound | None:
    return bind_add(x, dtype, count, n) if count > 1 else None


def _size(x: Tensor, trailing: int) -> tuple[int, int]:
    """How many rows x has, and their width."""
    lead = x.dim() - trailing
    return math.prod(x.shape[:lead]), math.prod(x.shape[lead:])


def _row_stride(x: Tensor, trailing: int) -> int | None:
    """From one row to the next, where all lie so, their elements adjacent; else None."""
    try:
        rows = x.view(_size(x, trailing))
    except RuntimeError:
        return None
    return rows.stride(0) if rows.shape[1] == 1 or rows.stride(1) == 1 else None


def _legible(x: Tensor, trailing: int) -> Tensor:
    """x, or a dense copy where its rows do not lie as the kernels read them."""
    return x if x.numel() == 0 or _row_stride(x, trailing) is not None else x.contiguous()


def _new(like: Tensor | None, wanted: bool) -> Tensor | None:
    if like is None or not wanted:
        return None
    return torch.empty_like(like, memory_format=torch.contiguous_format)
