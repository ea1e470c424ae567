"""Figures and names as the reader sees them."""

from __future__ import annotations

from normkit.bench.cases import Case
from normkit.bench.timing import Timing

__all__ = ["DIRECTION_NAMES", "OP_NAMES", "duration", "group_name", "percent", "spread", "times"]

OP_NAMES = {
    "rms_norm": "RMSNorm",
    "layer_norm": "LayerNorm",
    "batch_norm_training": "BatchNorm training",
    "batch_norm_inference": "BatchNorm inference",
}
DIRECTION_NAMES = {"forward": "forward", "forward+backward": "forward + backward", "backward": "backward"}


def group_name(case: Case) -> str:
    """The norm and the direction: `RMSNorm, forward + backward`."""
    return f"{OP_NAMES[case.op]}, {DIRECTION_NAMES[case.direction]}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: `12.1 us`, `1.20 ms`."""
    factor, unit = _unit(seconds)
    return f"{_significant(seconds * factor)} {unit}"


def spread(timing: Timing) -> str:
    """Median, p10 and p90 in one unit: `12.1 [11.0, 14.2] us`."""
    factor, unit = _unit(timing.median)
    median, p10, p90 = (_significant(t * factor) for t in (timing.median, timing.p10, timing.p90))
    return f"{median} [{p10}, {p90}] {unit}"


def times(ratio: float) -> str:
    """A ratio of speeds: `3.05x`."""
    return f"{_significant(ratio)}x"


def percent(share: float) -> str:
    """A share: `87%`."""
    return f"{share:.0%}"


def _unit(seconds: float) -> tuple[float, str]:
    return (1e6, "us") if seconds < 1e-3 else (1e3, "ms")


def _significant(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
