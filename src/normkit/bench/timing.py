"""Seconds per call: samples taken by turns, and their summary."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from normkit.bench.memory import page_faults

__all__ = ["Call", "Clock", "Samples", "Timing", "by_wall", "rounded", "take_turns"]

Call = Callable[[], object]
Clock = Callable[[Call, int], float]  # the seconds of one of so many calls, all that it repeats together

SAMPLE_SECONDS = 1e-3  # a sample repeats a shorter call until it lasts this long
# Before it as many calls go untimed, for at most so long. A large cache that was another contender's takes
# that many to hold what the calls touch: 20 for a copy of 8 MB on Zen 3, 40 for a norm.
SETTLING_CALLS, SETTLING_SECONDS = 50, 20e-3
BUDGET_SECONDS = 1.0  # in one contender's samples of one attempt; a slow one takes fewer
FEWEST = 5  # samples, whatever they cost


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over its samples: median, 10th and 90th percentile.

    faults: pages new to the process per call, the median: what tells warm outputs from fresh ones.
    """

    median: float
    p10: float
    p90: float
    samples: int
    faults: float


def rounded(figure: float) -> float:
    """A figure as it is kept: no measurement is known to more than four digits."""
    return float(f"{figure:.4g}")


class Samples:
    """The samples of one call so far."""

    def __init__(self, call: Call, clock: Clock | None = None) -> None:
        """`call` is run a few times to learn how long it takes. clock: the host's if None."""
        clock = clock or by_wall
        self.call, self.clock = call, clock
        self.seconds: list[float] = []
        self.faults: list[int] = []
        self.inner = getattr(call, "calls", 1)  # calls of the same kind in one, as of a recorded graph
        call()  # the first one pays for memory
        once = clock(call, 1)
        if once < SAMPLE_SECONDS / 10:  # one call of a few microseconds is no measure
            once = clock(call, 10)
        self.repeats = max(1, round(SAMPLE_SECONDS / once))
        # Replayed graphs go through more memory than a cache holds: there is nothing to settle.
        settling = 0 if self.inner > 1 else min(SETTLING_CALLS, round(SETTLING_SECONDS / once))
        self.untimed = max(self.repeats, settling)
        self.cost = (self.untimed + self.repeats) * once

    def affordable(self, rounds: int, fewest: int) -> int:
        """How many of `rounds` samples the budget allows, `fewest` at the least."""
        return max(min(rounds, fewest), min(rounds, int(BUDGET_SECONDS / self.cost)))

    def take(self) -> None:
        """Add a sample."""
        # So that each finds the caches as its own calls leave them and not as its neighbour did.
        self.clock(self.call, self.untimed)
        before = page_faults()
        self.seconds.append(self.clock(self.call, self.repeats) / self.inner)
        self.faults.append(page_faults() - before)

    def timing(self) -> Timing:
        """Summarise the samples."""
        median, p10, p90 = (rounded(float(q)) for q in np.percentile(self.seconds, [50, 10, 90]))
        # A sample in which the heap grew is as rare as one that took long.
        faults = float(np.median(self.faults)) / (self.repeats * self.inner)
        return Timing(median, p10, p90, samples=len(self.seconds), faults=rounded(faults))


def take_turns(
    calls: Mapping[str, Call], meter: Call, rounds: int, fewest: int = FEWEST, clock: Clock | None = None
) -> tuple[dict[str, Samples], list[float]]:
    """Sample every call once per round, in another order each round, so none always has the same neighbour.

    A call too slow for its budget sits rounds out, evenly, but takes `fewest` samples. Before each sample
    and after the last one `meter` is sampled too: its seconds come second, in the order they were taken.
    """
    all_samples = {name: Samples(call, clock) for name, call in calls.items()}
    turns = {name: samples.affordable(rounds, fewest) for name, samples in all_samples.items()}
    speed = Samples(meter, clock)
    shuffle = random.Random(0)
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for name in shuffle.sample(list(calls), len(calls)):
                if _is_due(turn, turns[name], rounds):
                    speed.take()
                    all_samples[name].take()
        speed.take()
    finally:
        gc.enable()
    return all_samples, speed.seconds


def _is_due(turn: int, wanted: int, rounds: int) -> bool:
    return (turn + 1) * wanted // rounds > turn * wanted // rounds


def by_wall(call: Call, repeats: int) -> float:
    """Seconds on the host's clock."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return max(time.perf_counter() - start, 1e-9) / repeats
