"""Figures and names as the reader sees them."""

from __future__ import annotations

from collections.abc import Sequence

from normkit.study.spread import Quantiles, Spread

__all__ = [
    "NAMES",
    "duration",
    "durations",
    "listing",
    "percent",
    "plain",
    "points",
    "shape_name",
    "significant",
    "times",
]

NAMES = {"none": "no norm", "batch": "BatchNorm", "layer": "LayerNorm", "rms": "RMSNorm"}


def percent(spread: Spread) -> str:
    """A share as `97.9 ± 0.5 %`; without a spread where there is one seed."""
    return f"{_pair(spread, 100)} %"


def points(spread: Spread) -> str:
    """A difference of two shares as `+3.1 ± 0.4 points`."""
    return f"{_pair(spread, 100, sign=True)} points"


def plain(spread: Spread, digits: int = 3) -> str:
    """A number as `0.123 ± 0.004`."""
    return _pair(spread, 1, digits=digits)


def times(quantiles: Quantiles) -> str:
    """A ratio as `4.4x [4.1, 5.0]`, the brackets holding p10 and p90."""
    return f"{significant(quantiles.median)}x [{significant(quantiles.p10)}, {significant(quantiles.p90)}]"


def durations(seconds: Quantiles) -> str:
    """A time with p10 and p90 in brackets, all in one unit: `12.1 µs [11.0, 14.2]`."""
    factor, unit = _unit(seconds.median)
    low, high = significant(seconds.p10 * factor), significant(seconds.p90 * factor)
    return f"{significant(seconds.median * factor)} {unit} [{low}, {high}]"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: `12 µs`, `1.2 ms`."""
    factor, unit = _unit(seconds)
    return f"{significant(seconds * factor)} {unit}"


def shape_name(shape: Sequence[int]) -> str:
    """A shape as `512x4096`."""
    return "x".join(map(str, shape))


def listing(names: Sequence[str]) -> str:
    """Names in a sentence: `a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _pair(spread: Spread, factor: float, sign: bool = False, digits: int = 1) -> str:
    mean = f"{spread.mean * factor:{'+' if sign else ''}.{digits}f}"
    return mean if spread.std is None else f"{mean} ± {spread.std * factor:.{digits}f}"


def _unit(seconds: float) -> tuple[float, str]:
    if seconds < 1e-3:
        return 1e6, "µs"
    return (1e3, "ms") if seconds < 1 else (1.0, "s")


def significant(value: float) -> str:
    """A positive number to three digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
