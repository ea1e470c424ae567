"""Whether the machine kept its speed while a case was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from normkit.bench.timing import Call

__all__ = ["ATTEMPTS", "MOST", "drift", "speedometer"]

MOST = 0.05  # a case in which the copy's speed changed by more is not reported
ATTEMPTS = 5

# A copy of a few microseconds is mostly the cost of a call; this one, in cache, shows the cores' speed.
_CALIBRATION_BYTES = 2**18


def drift(seconds: Sequence[float]) -> float:
    """By what share the copy's median time differs between the first and the second half of its samples.

    Needs two samples at least.
    """
    half = len(seconds) // 2
    first, second = statistics.median(seconds[:half]), statistics.median(seconds[half:])
    return max(first, second) / min(first, second) - 1


def speedometer(source: Tensor, target: Tensor) -> Call:
    """The copy by which the machine's speed is judged.

    It is that of the case's own tensor, or where it is small one of a fixed size.
    """
    if source.nbytes < _CALIBRATION_BYTES:
        source = torch.zeros(_CALIBRATION_BYTES, dtype=torch.uint8)
        target = torch.empty_like(source)
    return lambda: target.copy_(source)
