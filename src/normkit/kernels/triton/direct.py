"""What Triton compiled, launched with the least Python in between.

Triton's launcher is an object in Python. It hands a C function what it is given and what it knows, in an
order that depends on the version. Of all that, only the stream and the addresses change from launch to launch
of a kind: so the launcher is asked once what it hands over, and the C function is given that from then on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Launch: TypeAlias = Callable[[int, Sequence[int]], None]  # of a stream and the tensors' addresses
Grid: TypeAlias = tuple[int, ...]  # three numbers

# What a launcher for CUDA has in Triton 3.6 to 3.9. One that has more may also do more, at every launch.
_KNOWN = {
    *("launch", "launch_cooperative_grid", "launch_pdl", "num_ctas", "arg_annotations", "kernel_signature"),
    *("global_scratch_size", "global_scratch_align", "profile_scratch_size", "profile_scratch_align"),
    "gsan_enabled",
}
# Where one of these is not 0 it does more: memory for the launch alone, an account of every access.
_MORE = ("global_scratch_size", "profile_scratch_size", "gsan_enabled")


def direct(compiled: Any, grid: Grid, addresses: Sequence[int], rest: tuple[Any, ...]) -> Launch:
    """How to launch it again. addresses: its tensors', at some launch. rest: its arguments after them."""
    launcher, given = compiled.run, (*addresses, *rest)
    told = (compiled.function, compiled.packed_metadata, None, None, None)  # no hooks, nothing to tell them
    if _only_hands_over(launcher):
        handed = _handed_over(launcher, *grid, 0, *told, *given)
        if handed[:4] == (*grid, 0):  # the stream's place
            if handed[-1] == given:
                return _gathered(launcher.launch, grid, handed[4:-1], rest)
            if handed[-len(given) :] == given:
                return _spread(launcher.launch, grid, handed[4 : -len(given)], rest)
    return _spread(launcher, grid, told, rest)


def _only_hands_over(launcher: Any) -> bool:
    known = vars(launcher) if type(launcher).__name__ == "CudaLauncher" else {}
    return "launch" in known and known.keys() <= _KNOWN and not any(known.get(name, 0) for name in _MORE)


def _handed_over(launcher: Any, *arguments: Any) -> tuple[Any, ...]:
    """What it gives its C function for these arguments; nothing is launched."""
    handed: list[tuple[Any, ...]] = []
    asked = copy.copy(launcher)
    asked.launch = lambda *given: handed.append(given)
    asked(*arguments)
    return handed[0]


def _spread(launch: Any, grid: Grid, told: tuple[Any, ...], rest: tuple[Any, ...]) -> Launch:
    """The kernel's arguments one by one, as Triton's launchers take them, and up to 3.6 the C function."""

    def again(stream: int, addresses: Sequence[int]) -> None:
        launch(*grid, stream, *told, *addresses, *rest)

    return again


def _gathered(launch: Any, grid: Grid, told: tuple[Any, ...], rest: tuple[Any, ...]) -> Launch:
    """In one tuple, as later C functions take them."""

    def again(stream: int, addresses: Sequence[int]) -> None:
        launch(*grid, stream, *told, (*addresses, *rest))

    return again
