"""A kernel with all but its tensors decided: what a second call of a kind need not do again.

Triton's own launch looks at every argument anew, which takes longer than a small norm does; what it has
compiled can be launched directly.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from normkit.kernels.triton import launch, row_norm_kernels
from normkit.kernels.triton.device import on

__all__ = ["ACCUMULATE", "Bound", "Calls", "bind_add", "dense", "in_two", "kind"]

T = TypeVar("T")
MOST_CALLS = 4096
ACCUMULATE = {torch.float32: tl.float32, torch.float64: tl.float64}


class Bound:
    """A kernel over a grid. It takes its tensors first, then scalars, then constants by name.

    Always to be called with tensors of the same dtypes, and None in the same places.
    """

    __slots__ = ("_device", "_direct", "_grid", "_kernel", "_options", "_rest")

    def __init__(
        self, kernel: Any, grid: tuple[int, ...], like: Tensor, *scalars: Any, warps: int, **constants: Any
    ):
        """`like`: a tensor on the device where the kernel is to run."""
        self._kernel, self._device = kernel, like.device
        self._grid = (*grid, 1, 1)[:3]
        self._rest = (*scalars, *(constants[name] for name in kernel.arg_names if name in constants))
        self._options = {"num_warps": warps, "enable_fp_fusion": True}
        self._direct: dict[int, Any] = {}

    def __call__(self, *tensors: Tensor | None) -> None:
        """Launch it on the current stream of its device."""
        unaligned = 0  # a bit for each: for an address that is a multiple of 16 Triton compiles on its own
        for t in tensors:
            unaligned = 2 * unaligned + (t is not None and t.data_ptr() & 15 != 0)
        direct = self._direct.get(unaligned)
        with on(self._device):
            if direct is not None:
                direct(*tensors, *self._rest)
                return
            compiled = self._kernel[self._grid](*tensors, *self._rest, **self._options)
        if compiled is not None:  # Triton's interpreter compiles nothing
            self._direct[unaligned] = compiled[self._grid]


class Calls(dict[Any, T]):
    """Calls by what was decided on. Too many kinds, and all are forgotten: deciding anew costs little."""

    def keep(self, key: Any, call: T) -> T:
        """Remember it."""
        if len(self) >= MOST_CALLS:
            self.clear()
        self[key] = call
        return call


def kind(t: Tensor | None) -> Any:
    """All that a launch depends on of a tensor, but for its address."""
    return None if t is None else (t.dtype, t.shape, t.stride(), t.get_device())


def in_two(number: float) -> tuple[float, float]:
    """The number as two that float32 holds: a kernel's scalars are given to it as such."""
    high = float(np.float32(number))
    return high, number - high


def dense(parameter: Tensor | None) -> Tensor | None:
    """A parameter, its elements adjacent."""
    return None if parameter is None else parameter.contiguous()


def bind_add(like: Tensor, dtype: torch.dtype, count: int, n: int) -> Bound:
    """What adds up `count` partial sums of n: of (weight's, their sum, bias's, their sum)."""
    how = launch.PARTS
    return Bound(
        row_norm_kernels.add_parts, (triton.cdiv(n, how.columns),), like, count, n,
        warps=how.warps, A=ACCUMULATE[dtype], PARTS=how.rows, COLUMNS=how.columns,
    )  # fmt: skip
