"""Row: what each norm costs."""

from __future__ import annotations

import math
from collections.abc import Callable

from normkit.study.spread import Quantiles, overlap
from normkit.study.summary import CostSummary, Summary
from normkit.study.table.row import COLUMNS, UNSEEN, Line, Row
from normkit.study.wording import duration, durations, shape_name, times

__all__ = ["cost_of", "cost_row", "is_unsteady", "shapes_of"]

IMPLEMENTATIONS = (("normkit", "normkit"), ("torch", "PyTorch"))
UNSTEADY = 3.0
PASSES = ((False, "forward"), (True, "fwd+bwd"))


def cost_row(summary: Summary) -> Row:
    """Rank the norms by the time of forward and backward pass on the large tensor."""
    norms = [norm for norm in COLUMNS if shapes_of(summary, norm)]
    shapes = {norm: shapes_of(summary, norm) for norm in norms}
    lines = [Line("float32 tensor", {norm: shape_name(shapes[norm][-1]) for norm in norms})]
    lines += _lines(summary, norms, -1, "", _ratio, main=True)
    lines += _lines(summary, norms, -1, "rate, ", _rate)
    lines.append(Line("small tensor", {norm: shape_name(shapes[norm][0]) for norm in norms}, main=False))
    lines += _lines(summary, norms, 0, "small, ", lambda case, ratio, seconds: durations(seconds))
    return Row(
        key="cost",
        title="Compute cost",
        rule="Time over the time of a copy of the same tensor, measured side by side; median [p10, p90]. Of "
        "two norms one is dearer when its range from p10 to p90 lies wholly above the other's: forward and "
        "backward together, large tensor. GB/s: the bytes that must move over the median time; per cent: of "
        "the copy's GB/s.",
        verdicts={norm: _verdict(summary, norm) for norm in norms},
        lines=tuple(lines),
    )


def shapes_of(summary: Summary, norm: str) -> list[tuple[int, ...]]:
    """The shapes on which `norm` was timed, the smallest first."""
    shapes = {shape for other, _, shape, _ in summary.costs if other == norm}
    return sorted(shapes, key=lambda shape: (math.prod(shape), shape))


def cost_of(
    summary: Summary, norm: str, implementation: str, backward: bool, size: int = -1
) -> CostSummary | None:
    """The case of `norm` on its largest shape, or its smallest with `size` 0; None where there is none."""
    shapes = shapes_of(summary, norm)
    return summary.costs.get((norm, implementation, shapes[size], backward)) if shapes else None


def is_unsteady(summary: Summary) -> bool:
    """Whether even the copies of the large tensors took times that differ by `UNSTEADY` from p10 to p90."""
    large = [shapes_of(summary, norm)[-1] for norm in COLUMNS if shapes_of(summary, norm)]
    copies = [
        seconds
        for (_, _, shape, _), case in summary.costs.items()
        if shape in large
        for seconds in case.cost.copy_seconds
    ]
    return bool(copies) and Quantiles.of(copies).p90 > UNSTEADY * Quantiles.of(copies).p10


def _lines(
    summary: Summary,
    norms: list[str],
    size: int,
    prefix: str,
    word: Callable[[CostSummary, Quantiles, Quantiles], str],
    main: bool = False,
) -> list[Line]:
    lines = []
    for backward, pass_name in PASSES:
        for implementation, name in IMPLEMENTATIONS:
            values = {}
            for norm in norms:
                case = cost_of(summary, norm, implementation, backward, size)
                if case is None or case.ratio is None or case.seconds is None:
                    values[norm] = "wrong result, not timed"
                else:
                    values[norm] = word(case, case.ratio, case.seconds)
            lines.append(Line(f"{prefix}{pass_name}, {name}", values, main))
    return lines


def _ratio(case: CostSummary, ratio: Quantiles, seconds: Quantiles) -> str:
    return times(ratio)


def _rate(case: CostSummary, ratio: Quantiles, seconds: Quantiles) -> str:
    return f"{duration(seconds.median)} {case.gigabytes_per_second:.1f} GB/s {case.share_of_copy:.0%}"


def _verdict(summary: Summary, norm: str) -> str:
    ours, theirs = _rank(summary, norm, "normkit"), _rank(summary, norm, "torch")
    return ours if ours == theirs else f"{ours} (PyTorch's own: {theirs})"


def _rank(summary: Summary, norm: str, implementation: str) -> str:
    mine = cost_of(summary, norm, implementation, backward=True)
    others = [cost_of(summary, other, implementation, backward=True) for other in COLUMNS if other != norm]
    if mine is None or mine.ratio is None:
        return "not timed"
    ratios = [other.ratio for other in others if other is not None and other.ratio is not None]
    apart = [ratio for ratio in ratios if not overlap(ratio, mine.ratio)]
    cheaper = [ratio for ratio in apart if ratio.median < mine.ratio.median]
    if not apart:
        return UNSEEN
    if cheaper and len(cheaper) < len(apart):
        return "in between"
    return f"{'' if len(apart) == len(ratios) else 'among the '}{'dearest' if cheaper else 'cheapest'}"
