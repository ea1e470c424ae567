"""A kernel with all but its tensors decided: what a second call of a kind need not do again.

Triton's own launch looks at every argument anew, which takes longer than a small norm does; what it has
compiled can be launched directly (`normkit.kernels.triton.direct`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from normkit.kernels.triton import launch, row_norm_kernels
from normkit.kernels.triton.device import current_stream, index_of, is_current, on
from normkit.kernels.triton.direct import Launch, direct

__all__ = [
    "ACCUMULATE",
    "Bound",
    "Calls",
    "Make",
    "bind_add",
    "dense",
    "in_two",
    "kind",
    "maker",
    "parameter_kind",
]

T = TypeVar("T")
Make: TypeAlias = Callable[[Tensor], Tensor]
MOST_CALLS = 4096
ACCUMULATE = {torch.float32: tl.float32, torch.float64: tl.float64}


class Bound:
    """A kernel over a grid. It takes its tensors first, then scalars, then constants by name.

    Always to be called with tensors of the same dtypes, and None in the same places.
    """

    __slots__ = ("_compiled", "_direct", "_gpu", "_grid", "_kernel", "_options", "_rest")

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        like: Tensor,
        *scalars: Any,
        warps: int,
        registers: int = 0,
        waiting: bool = False,
        **constants: Any,
    ):
        """`like`: a tensor on the device where it is to run.

        registers: of a thread at most, if not 0. waiting: its programs wait for each other: all have to run.
        """
        self._kernel, self._gpu = kernel, index_of(like.device)
        self._grid = (*grid, 1, 1)[:3]
        self._rest = (*scalars, *(constants[name] for name in kernel.arg_names if name in constants))
        self._options: dict[str, Any] = {"num_warps": warps, "enable_fp_fusion": True}
        if registers:
            self._options["maxnreg"] = registers
        if waiting:
            self._options["launch_cooperative_grid"] = True
        self._direct: dict[Any, Launch] = {}
        self._compiled: list[Any] = []  # Triton unloads what nobody holds

    def __call__(self, *tensors: Tensor | None) -> None:
        """Launch it on the current stream of its device."""
        addresses, bits = [], 0
        for t in tensors:
            address = 0 if t is None else t.data_ptr()
            addresses.append(address)
            bits |= address
        # For an address that is a multiple of 16 Triton compiles on its own.
        odd = tuple(address & 15 != 0 for address in addresses) if bits & 15 else None
        again = self._direct.get(odd)
        if again is None:
            with on(self._gpu):
                self._first(odd, tensors, addresses)
        elif is_current(self._gpu):
            again(current_stream(self._gpu), addresses)
        else:
            with on(self._gpu):
                again(current_stream(self._gpu), addresses)

    def _first(self, odd: Any, tensors: tuple[Tensor | None, ...], addresses: list[int]) -> None:
        compiled = self._kernel[self._grid](*tensors, *self._rest, **self._options)
        if compiled is not None:  # Triton's interpreter compiles nothing
            self._direct[odd] = direct(compiled, self._grid, addresses, self._rest)
            self._compiled.append(compiled)


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


def parameter_kind(p: Tensor | None) -> Any:
    """The same of a parameter, which is read densely or copied: how else it lies makes no difference."""
    return None if p is None else (p.dtype, p.shape, p.is_contiguous(), p.get_device())


def maker(x: Tensor, format: torch.memory_format) -> Make:
    """What makes an output of this format for inputs of x's kind.

    PyTorch is quicker when it is asked for no format, which often comes to the same.
    """
    strides = torch.empty_like(x, memory_format=format, device="meta").stride()
    if strides == torch.empty_like(x, device="meta").stride():
        return torch.empty_like
    return functools.partial(torch.empty_like, memory_format=format)


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
        row_norm_kernels.add_parts, (triton.cdiv(n, how.columns), 2), like, count, n,
        warps=how.warps, A=ACCUMULATE[dtype], PARTS=how.rows, COLUMNS=how.columns,
    )  # fmt: skip
