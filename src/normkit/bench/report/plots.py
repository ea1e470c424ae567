"""The report's plots: how near the floor, and how far from the others."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from normkit._svg import COLOURS, INK, panel, to_svg
from normkit.bench.cases import DIRECTIONS, OPS, Case
from normkit.bench.contenders.registry import CONTENDERS, OURS
from normkit.bench.results import Bench, Row
from normkit.bench.summary import by_group, ratios
from normkit.bench.wording import DIRECTION_NAMES, OP_NAMES, percent, times

__all__ = ["MARKERS", "NORM_COLOURS", "Panel", "ratio_panels", "roofline_panels"]

NORM_COLOURS = {
    "rms_norm": "rms",
    "layer_norm": "layer",
    "batch_norm_training": "batch",
    "batch_norm_inference": "none",
}
MARKERS = {"forward": "o", "forward+backward": "s", "backward": "^"}
_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Panel:
    """A plot and its heading."""

    title: str
    svg: str


def roofline_panels(bench: Bench) -> list[Panel]:
    """Per dtype the share of the floor against the counted bytes, a point per steady case."""
    return [
        _roofline(dtype, [row for row in rows if row.share_of_floor is not None])
        for dtype, rows in _by_dtype(bench)
    ]


def ratio_panels(bench: Bench) -> list[Panel]:
    """Per dtype, norm and direction the geometric mean of the ratio to each contender over steady cases."""
    return [_ratios(dtype, rows, bench.settings.peers) for dtype, rows in _by_dtype(bench)]


def _by_dtype(bench: Bench) -> Iterator[tuple[str, list[Row]]]:
    rows = [row for row in bench.rows if row.steady and row.seconds(OURS) is not None]
    for dtype in dict.fromkeys(row.case.dtype for row in rows):
        yield dtype, [row for row in rows if row.case.dtype == dtype]


def _roofline(dtype: str, rows: Sequence[Row]) -> Panel:
    figure, axes = panel(3.0)
    words = []
    for op in OPS:
        for direction in DIRECTIONS:
            points = [row for row in rows if (row.case.op, row.case.direction) == (op, direction)]
            shares = [row.share_of_floor or 0.0 for row in points]
            axes.plot(
                [row.counted_bytes for row in points],
                [100 * share for share in shares],
                MARKERS[direction],
                color=COLOURS[NORM_COLOURS[op]],
                markersize=5,
                alpha=0.8,
            )
            if shares:
                name = f"{OP_NAMES[op]}, {DIRECTION_NAMES[direction]}"
                words.append(f"{name} {percent(min(shares))} to {percent(max(shares))}")
    axes.axhline(100, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _size(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("bytes that must move")
    axes.set_ylabel("share of the floor, %")
    return Panel(
        dtype, to_svg(figure, f"roofline-{dtype}", f"Share of the floor in {dtype}: " + "; ".join(words))
    )


def _ratios(dtype: str, rows: Sequence[Row], peers: Sequence[str]) -> Panel:
    bars = [
        (group, peer, statistics.geometric_mean(found))
        for group, members in by_group(rows).items()
        for peer in peers
        if (found := ratios(members, peer))
    ]
    figure, axes = panel(1.2 + 0.2 * len(bars))
    labels: dict[str, list[float]] = {}
    colours: dict[str, Artist] = {}
    place = 0.0
    for number, (group, peer, mean) in enumerate(bars):
        place += 1.6 if number and bars[number - 1][0] != group else 1.0
        labels.setdefault(group, []).append(place)
        bar = axes.barh(place, mean - 1, left=1, color=COLOURS[peer], height=0.8)
        colours.setdefault(CONTENDERS[peer].title, bar[0])
        side = "left" if mean >= 1 else "right"
        axes.text(mean, place, f" {times(mean)} ", va="center", ha=side, color=INK, fontsize=7.5)
    _ratio_axis(axes, [mean for *_, mean in bars])
    axes.set_yticks([statistics.fmean(places) for places in labels.values()], list(labels))
    figure.legend(
        colours.values(),
        colours.keys(),
        loc="outside upper center",
        ncols=4,
        frameon=False,
        labelcolor=INK,
        handlelength=1,
        columnspacing=1.2,
    )
    words = "; ".join(f"{group} {times(mean)} {CONTENDERS[peer].title}" for group, peer, mean in bars)
    return Panel(dtype, to_svg(figure, f"ratios-{dtype}", f"Times as fast in {dtype}: {words}"))


def _ratio_axis(axes: Axes, means: Sequence[float]) -> None:
    low, high = min([*means, 1.0]), max([*means, 1.0])
    axes.set_xscale("log", base=2)
    axes.set_xlim(low / 2, high * 2)
    ticks = [t for t in _TICKS if low / 2 <= t <= high * 2]
    if len(ticks) > 6:  # there is no room for more
        ticks = ticks[ticks.index(1) % 2 :: 2]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvline(1, color=INK, linewidth=1)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("times as fast")


def _size(value: float) -> str:
    for factor, unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g} B"


def legend_of(cases: Sequence[Case]) -> tuple[list[str], list[str]]:
    """The norms and the directions that occur, in their order."""
    ops, directions = {case.op for case in cases}, {case.direction for case in cases}
    return [op for op in OPS if op in ops], [d for d in DIRECTIONS if d in directions]
