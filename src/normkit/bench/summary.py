"""What the rows come to: the figures that speed is promised in."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from normkit.bench.cases import DIRECTIONS, OPS, Case
from normkit.bench.contenders.registry import OURS
from normkit.bench.results import Bench, Row
from normkit.bench.wording import group_name

__all__ = ["BEHIND", "FLOOR_GROUPS", "FloorShare", "Mean", "Summary", "by_group", "ratios", "summarise"]

BEHIND = 0.95  # of the best contender's speed: a slower case is named

# Cases of more than 1 MB by what their share of the floor is promised for.
FLOOR_GROUPS: dict[str, Callable[[Case], bool]] = {
    "row norms, forward": lambda case: case.is_row_norm and case.direction == "forward",
    "row norms, backward": lambda case: case.is_row_norm and case.direction == "backward",
    "BatchNorm training, forward + backward": lambda case: (
        case.op == "batch_norm_training" and case.direction == "forward+backward"
    ),
}


@dataclass(frozen=True)
class Mean:
    """A geometric mean over a number of cases."""

    value: float
    cases: int


@dataclass(frozen=True)
class FloorShare:
    """The share of the floor over a group's large cases of one dtype: lowest, where, and median."""

    group: str
    dtype: str
    lowest: float
    lowest_case: Case
    median: float
    cases: int


@dataclass(frozen=True)
class Summary:
    """Over the steady rows in which normkit was right.

    against: how many times as fast normkit is as each contender. best: as the best of each case. behind:
    the rows below `BEHIND` of the best, slowest first. shares: see `FloorShare`. refused: rows on a
    machine too unsteady. wrong: rows in which normkit's own result was wrong.
    """

    against: dict[str, Mean]
    best: Mean | None
    behind: tuple[Row, ...]
    shares: tuple[FloorShare, ...]
    refused: tuple[Row, ...]
    wrong: tuple[Row, ...]


def summarise(bench: Bench) -> Summary:
    """Work it out."""
    rows = [row for row in bench.rows if row.steady and row.seconds(OURS) is not None]
    to_best = {row.case: ratio for row in rows if (ratio := _to_best(row)) is not None}
    behind = [row for row in rows if to_best.get(row.case, BEHIND) < BEHIND]
    means = {peer: _mean(ratios(rows, peer)) for peer in bench.settings.peers}
    shares = [_share(group, dtype, rows) for group in FLOOR_GROUPS for dtype in _dtypes(rows)]
    return Summary(
        against={peer: mean for peer, mean in means.items() if mean is not None},
        best=_mean(list(to_best.values())),
        behind=tuple(sorted(behind, key=lambda row: to_best[row.case])),
        shares=tuple(share for share in shares if share is not None),
        refused=tuple(row for row in bench.rows if not row.steady),
        wrong=tuple(row for row in bench.rows if row.seconds(OURS) is None),
    )


def by_group(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows by norm and direction, in the order in which the bench names these."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (OPS.index(row.case.op), DIRECTIONS.index(row.case.direction))):
        groups.setdefault(group_name(row.case), []).append(row)
    return groups


def ratios(rows: Sequence[Row], peer: str) -> list[float]:
    """How many times as fast as `peer` normkit is, in the rows where both were timed."""
    return [ratio for row in rows if (ratio := row.ratio(peer)) is not None]


def _to_best(row: Row) -> float | None:
    return None if row.best_peer is None else row.ratio(row.best_peer)


def _mean(ratios: Sequence[float]) -> Mean | None:
    return Mean(statistics.geometric_mean(ratios), len(ratios)) if ratios else None


def _dtypes(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.case.dtype for row in rows))


def _share(group: str, dtype: str, rows: Sequence[Row]) -> FloorShare | None:
    shares = {
        row.case: share
        for row in rows
        if row.case.dtype == dtype
        and row.case.is_large
        and FLOOR_GROUPS[group](row.case)
        and (share := row.share_of_floor) is not None
    }
    if not shares:
        return None
    lowest = min(shares, key=lambda case: shares[case])
    return FloorShare(group, dtype, shares[lowest], lowest, statistics.median(shares.values()), len(shares))
