"""Timing by turns: every contender and a copy of the same tensor, interleaved in one process."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from normkit.bench.cases import CONTENDERS, Case, Norm, exact

SAMPLE_SECONDS = 1e-3  # a sample repeats a short call until it lasts this long, any call three times
# Error that passes, in units of the dtype's eps times the largest exact value: outputs and input
# gradients are rounded a few times, weight gradients add a million terms in float32.
_UNITS = {"float32": 512.0, "bfloat16": 4.0}


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median of the samples and their 10th and 90th percentile."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Result:
    """One case: the time of each contender whose result was right, and of a copy."""

    case: Case
    copy: Timing
    times: dict[str, Timing]
    wrong: dict[str, float]  # the contender's largest error over what passes

    def ratio(self, contender: str, to: str) -> float:
        """How many times as fast `contender` is as `to`."""
        return self.times[to].median / self.times[contender].median


def keep_memory() -> bool:
    """Have the C library keep freed memory, so that outputs are warm; False where it can't be asked.

    Else a large output comes from fresh pages at one call and from used ones at the next, by luck, and
    the pages cost as much as the norm.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return False
    trim_threshold, mmap_threshold = -1, -3
    return bool(mallopt(trim_threshold, 2**31 - 1) and mallopt(mmap_threshold, 2**25))


def measure(case: Case, rounds: int) -> Result:
    """Check every contender against the reference, then time those that passed, by turns."""
    inputs = case.inputs()  # one set for all, so that every contender finds the caches alike
    calls = {name: _call(case, make(case), inputs) for name, make in CONTENDERS.items()}
    errors = _errors(case, calls)
    wrong = {name: error for name, error in errors.items() if not error <= 1.0}
    source = inputs[0].detach()
    target = torch.empty_like(source)
    timed: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(source)}
    timed |= {name: call for name, call in calls.items() if name not in wrong}
    samples: dict[str, list[float]] = {name: [] for name in timed}
    with torch.inference_mode(mode=not case.backward):
        repeats = {name: _repeats(call) for name, call in timed.items()}
        for _ in range(rounds):
            for name, call in timed.items():
                samples[name].append(_seconds(call, repeats[name]))
    times = {name: _timing(seconds) for name, seconds in samples.items()}
    return Result(case, times.pop("copy"), times, wrong)


def _call(case: Case, norm: Norm, inputs: tuple[Tensor, ...]) -> Callable[[], list[Tensor]]:
    x, weight, bias, upstream = inputs
    if not case.backward:
        return lambda: [norm(x, weight, bias)]
    wanted = [t.requires_grad_() for t in ((x, weight) if case.op == "rms_norm" else (x, weight, bias))]

    def both() -> list[Tensor]:
        y = norm(x, weight, bias)
        return [y, *torch.autograd.grad(y, wanted, upstream)]

    return both


def _errors(case: Case, calls: dict[str, Callable[[], list[Tensor]]]) -> dict[str, float]:
    wanted = exact(case)
    unit = _UNITS[case.dtype] * torch.finfo(getattr(torch, case.dtype)).eps

    def error(call: Callable[[], list[Tensor]]) -> float:
        got = [t.detach().double().numpy() for t in call()]
        pairs = zip(got, wanted, strict=True)
        return max(float(np.max(np.abs(a - b)) / (unit * np.max(np.abs(b)))) for a, b in pairs)

    return {name: error(call) for name, call in calls.items()}


def _repeats(call: Callable[[], object]) -> int:
    return max(3, int(SAMPLE_SECONDS / max(_seconds(call, 3), 1e-9)))


def _seconds(call: Callable[[], object], repeats: int) -> float:
    call()  # so that each finds the caches as its own last call left them, not as its neighbour did
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _timing(seconds: list[float]) -> Timing:
    p10, p90 = np.percentile(seconds, [10, 90])
    return Timing(statistics.median(seconds), float(p10), float(p90))
