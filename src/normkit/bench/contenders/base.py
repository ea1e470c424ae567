"""What a contender is to the bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from normkit.bench.operands import Results
from normkit.bench.timing import Call

__all__ = ["Contender", "Prepared", "Unavailable"]


class Unavailable(Exception):
    """A contender cannot take part in a case; the message says why in a few words."""


@dataclass(frozen=True)
class Contender:
    """name: on the command line and in JSON. title: for readers. module: its file in this package.

    devices: where it takes part. A module has `norm(case, operands)`, a function of PyTorch's tensors, or,
    where it works on its own, `prepare(case, operands, threads)`.
    """

    name: str
    title: str
    module: str
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True)
class Prepared:
    """A contender ready to be timed on one case.

    call: what is timed.
    results: makes a call and gives its results; to be used once, before any other call, as the running
        statistics change with each.
    allocates: whether a call takes memory for its results from the C library, so that warm and fresh
        differ.
    alive: what `call` points to without owning it.
    """

    call: Call
    results: Callable[[], Results]
    allocates: bool = True
    alive: object = None
