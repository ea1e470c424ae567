"""Figures with their spread, and the one rule by which two of them are told apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["RULE", "Quantiles", "Spread", "differ", "overlap"]

FACTOR = 2.0
RULE = (
    "Two figures are called different when their means over the seeds are further apart than twice their "
    "pooled standard deviation, sqrt((s1² + s2²) / 2), where a standard deviation below the figure's "
    "resolution (one test image, for accuracies) counts as that resolution. Otherwise: no difference seen."
)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; `std` is None where there is one seed only."""

    mean: float
    std: float | None
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one value per seed. Raises ValueError where there is none."""
        if not values:
            raise ValueError("values must hold at least one number; got none")
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std, min(values), max(values))


@dataclass(frozen=True)
class Quantiles:
    """Median, tenth and ninetieth percentile of repeated timings."""

    p10: float
    median: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        """Summarise the samples; with one sample all three are that one."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        cuts = statistics.quantiles(values, n=10, method="inclusive")
        return cls(cuts[0], statistics.median(values), cuts[-1])


def differ(a: Spread, b: Spread, resolution: float = 0.0) -> int | None:
    """1 if `a` is higher than `b` by `RULE`, -1 if lower, 0 if no difference is seen, None with one seed."""
    if a.std is None or b.std is None:
        return None
    pooled = math.sqrt((max(a.std, resolution) ** 2 + max(b.std, resolution) ** 2) / 2)
    gap = a.mean - b.mean
    if abs(gap) <= FACTOR * pooled:
        return 0
    return 1 if gap > 0 else -1


def overlap(a: Quantiles, b: Quantiles) -> bool:
    """Whether the ranges from p10 to p90 share a point."""
    return a.p10 <= b.p90 and b.p10 <= a.p90
