"""The report's plots, a panel each, drawn from a summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from normkit._svg import COLOURS, INK, MARKERS, panel, to_svg
from normkit.study.spread import Quantiles, Spread
from normkit.study.summary import Group, Summary
from normkit.study.table import COLUMNS, REFERENCE
from normkit.study.table.cost import cost_of
from normkit.study.table.use import architectures
from normkit.study.wording import NAMES, percent, plain, points, significant, times

__all__ = ["Panel", "draw"]

ORDER = (*COLUMNS, REFERENCE)


@dataclass(frozen=True)
class Panel:
    """A plot and its heading."""

    title: str
    svg: str


def draw(summary: Summary) -> dict[str, list[Panel]]:
    """All panels by the row of the table they belong to; "curves" holds the training curves."""
    swept = [architecture for architecture, norm in summary.sweep if norm == REFERENCE]
    nets = architectures(summary)
    return {
        "cost": [_cost_panel(summary, backward) for backward in (False, True)],
        "batch size": [_sweep_panel(summary, net) for net in swept]
        + [_streaming_panel(summary, net) for net in swept],
        "use": [_accuracy_panel(summary, net) for net in nets],
        "gap": [_gap_panel(summary, net) for net in nets],
        "mode": [_mode_panel(summary, net) for net in swept],
        "curves": [_curve_panel(summary, net) for net in nets],
    }


def _cost_panel(summary: Summary, backward: bool) -> Panel:
    title = "Forward and backward" if backward else "Forward"
    bars: list[tuple[str, str, Quantiles]] = []
    floor = 1.0
    for norm in COLUMNS:
        for implementation, name in (("normkit", "normkit"), ("torch", "PyTorch")):
            case = cost_of(summary, norm, implementation, backward)
            if case is not None and case.ratio is not None:
                bars.append((norm, f"{NAMES[norm]}, {name}", case.ratio))
                floor = case.cost.moved_bytes / case.cost.copy_bytes
    figure, axes = panel(2.6)
    for place, (norm, name, ratio) in enumerate(bars):
        own = name.endswith("normkit")
        axes.barh(place, ratio.median, color=COLOURS[norm], alpha=0.9 if own else 0.4, height=0.7)
        axes.plot([ratio.p10, ratio.p90], [place, place], color=INK, linewidth=1.3)
        axes.text(ratio.p90, place, f"  {significant(ratio.median)}", va="center", ha="left", color=INK)
    axes.axvline(floor, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(bars)), [name for _, name, _ in bars])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    axes.set_xlabel("time, in copies of the tensor")
    label = f"{title}, time in copies: " + "; ".join(f"{name} {times(ratio)}" for _, name, ratio in bars)
    return Panel(title, to_svg(figure, f"cost-{'both' if backward else 'forward'}", label))


def _sweep_panel(summary: Summary, architecture: str) -> Panel:
    figure, axes = panel(2.8)
    label = [f"Test accuracy of the {architecture} against batch size"]
    for norm in ORDER:
        groups = summary.sweep[architecture, norm]
        spreads = [group.test_accuracy for group in groups.values()]
        _band(axes, norm, list(groups), spreads)
        label.append(
            f"{NAMES[norm]} "
            + ", ".join(f"{percent(spread)} at {size}" for size, spread in zip(groups, spreads, strict=True))
        )
    _batch_axis(axes, list(summary.sweep[architecture, REFERENCE]))
    axes.set_ylabel("test accuracy, %")
    return Panel(f"{architecture}, by batch size", to_svg(figure, f"sweep-{architecture}", "; ".join(label)))


def _mode_panel(summary: Summary, architecture: str) -> Panel:
    figure, axes = panel(2.8)
    label = [f"Distance of the {architecture}'s logits in training and inference mode against batch size"]
    for norm in ORDER:
        groups = summary.sweep[architecture, norm]
        spreads = [group.mode_shift for group in groups.values()]
        _band(axes, norm, list(groups), spreads, factor=1)
        label.append(
            f"{NAMES[norm]} "
            + ", ".join(f"{plain(spread, 2)} at {size}" for size, spread in zip(groups, spreads, strict=True))
        )
    _batch_axis(axes, list(summary.sweep[architecture, REFERENCE]))
    axes.set_ylabel("distance, std of logits")
    return Panel(architecture, to_svg(figure, f"mode-{architecture}", "; ".join(label)))


def _curve_panel(summary: Summary, architecture: str) -> Panel:
    figure, axes = panel(2.8)
    label = [f"Test accuracy of the {architecture} while it trains"]
    for norm in ORDER:
        group = summary.architecture[architecture, norm]
        curves = [run.curve for run in group.runs if run.curve]
        steps = [point.samples for point in curves[0]]
        spreads = [
            Spread.of([point.test_accuracy for point in points]) for points in zip(*curves, strict=True)
        ]
        _band(axes, norm, steps, spreads, markers=False)
        label.append(f"{NAMES[norm]} ends at {percent(spreads[-1])}")
    axes.set_xlabel("images seen")
    axes.set_ylabel("test accuracy, %")
    return Panel(architecture, to_svg(figure, f"curve-{architecture}", "; ".join(label)))


def _accuracy_panel(summary: Summary, architecture: str) -> Panel:
    groups = {norm: summary.architecture[architecture, norm] for norm in ORDER}
    return _dots(
        architecture,
        "test accuracy, %",
        f"use-{architecture}",
        groups,
        lambda group: [run.test_accuracy for run in group.runs],
        percent,
    )


def _gap_panel(summary: Summary, architecture: str) -> Panel:
    groups = {norm: summary.architecture[architecture, norm] for norm in ORDER}
    return _dots(
        architecture,
        "training minus test accuracy, points",
        f"gap-{architecture}",
        groups,
        lambda group: [
            run.train_accuracy - run.test_accuracy
            for run in group.runs
            if run.train_accuracy is not None and run.test_accuracy is not None
        ],
        points,
    )


def _streaming_panel(summary: Summary, architecture: str) -> Panel:
    groups = {norm: summary.streaming[architecture, norm] for norm in ORDER}
    return _dots(
        f"{architecture}, one image at a time",
        "test accuracy, %",
        f"stream-{architecture}",
        groups,
        lambda group: [run.test_accuracy for run in group.runs],
        percent,
    )


def _dots(
    title: str,
    axis: str,
    name: str,
    groups: dict[str, Group],
    values: Callable[[Group], Sequence[float | None]],
    word: Callable[[Spread], str],
) -> Panel:
    """A line per norm: a small dot per seed, a large marker at the mean, a bar of one std to either side."""
    figure, axes = panel(1.9)
    label = [f"{title}: {axis}"]
    for place, (norm, group) in enumerate(groups.items()):
        found = [value for value in values(group) if value is not None]
        if not found:
            axes.text(0.02, place, "ValueError", va="center", color=INK, transform=axes.get_yaxis_transform())
            label.append(f"{NAMES[norm]} ended in ValueError")
            continue
        spread = Spread.of(found)
        mean, std = 100 * spread.mean, 100 * (spread.std or 0.0)
        axes.plot([mean - std, mean + std], [place, place], color=COLOURS[norm], linewidth=2.2)
        axes.plot(
            [100 * value for value in found], [place] * len(found), ".", color=INK, markersize=4, alpha=0.7
        )
        axes.plot(mean, place, MARKERS[norm], color=COLOURS[norm], markersize=8)
        label.append(f"{NAMES[norm]} {word(spread)}")
    axes.set_yticks(range(len(groups)), [NAMES[norm] for norm in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(axis)
    return Panel(title, to_svg(figure, name, "; ".join(label)))


def _band(
    axes: Axes,
    norm: str,
    x: Sequence[float],
    spreads: Sequence[Spread],
    factor: float = 100,
    markers: bool = True,
) -> None:
    mean = [factor * spread.mean for spread in spreads]
    low = [factor * (spread.mean - (spread.std or 0.0)) for spread in spreads]
    high = [factor * (spread.mean + (spread.std or 0.0)) for spread in spreads]
    axes.fill_between(x, low, high, color=COLOURS[norm], alpha=0.18, linewidth=0)
    axes.plot(
        x, mean, color=COLOURS[norm], linewidth=1.8, marker=MARKERS[norm] if markers else None, markersize=5
    )


def _batch_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(sizes), [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("batch size")
