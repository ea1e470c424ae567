"""Row: what small batches do to each norm."""

from __future__ import annotations

from normkit.study.spread import RULE, differ
from normkit.study.summary import Group, Summary
from normkit.study.table.row import COLUMNS, ONE_SEED, REFERENCE, Line, Row
from normkit.study.wording import listing, percent

__all__ = ["batch_size_row", "best_batch_size", "falls"]


def batch_size_row(summary: Summary, resolution: float) -> Row:
    """Compare each norm's smallest batch with its best one, and say what came of one image at a time."""
    norms = (*COLUMNS, REFERENCE)
    lines = []
    for architecture in dict.fromkeys(architecture for architecture, _ in summary.sweep):
        sweeps = {norm: summary.sweep[architecture, norm] for norm in norms}
        sizes = list(sweeps[REFERENCE])
        lines += [
            Line(
                f"{architecture}, batch {size}",
                {norm: percent(groups[size].test_accuracy) for norm, groups in sweeps.items()},
                main=size == min(sizes),
            )
            for size in sizes
        ]
        best = {norm: best_batch_size(groups) for norm, groups in sweeps.items()}
        lines.append(
            Line(
                f"{architecture}, best batch",
                {
                    norm: f"{percent(sweeps[norm][size].test_accuracy)} at {size}"
                    for norm, size in best.items()
                },
            )
        )
        lines.append(
            Line(
                f"{architecture}, one at a time",
                {norm: _streaming_figure(summary.streaming[architecture, norm]) for norm in norms},
            )
        )
    return Row(
        key="batch size",
        title="Dependence on batch size",
        rule="Test accuracy at the smallest batch size against the best of all batch sizes of the same norm, "
        "all having seen as many images. " + RULE,
        verdicts={norm: _verdict(summary, norm, resolution) for norm in norms},
        lines=tuple(lines),
    )


def best_batch_size(groups: dict[int, Group]) -> int:
    """The batch size of highest mean test accuracy."""
    return max(groups, key=lambda size: groups[size].test_accuracy.mean)


def falls(groups: dict[int, Group], resolution: float) -> bool | None:
    """Whether the smallest batch size does worse than the best one; None where one seed tells nothing."""
    least, most = groups[min(groups)], groups[best_batch_size(groups)]
    sign = differ(least.test_accuracy, most.test_accuracy, resolution)
    return None if sign is None else sign == -1


def _verdict(summary: Summary, norm: str, resolution: float) -> str:
    fallen = {
        architecture: falls(groups, resolution)
        for (architecture, other), groups in summary.sweep.items()
        if other == norm
    }
    if None in fallen.values():
        words = ONE_SEED
    else:
        where = [architecture for architecture, is_fallen in fallen.items() if is_fallen]
        words = f"falls in small batches: {listing(where)}" if where else "no fall in small batches seen"
    refused = [name for (name, other), group in summary.streaming.items() if other == norm and group.error]
    return words + (f"; no training one at a time: {listing(refused)}" if refused else "")


def _streaming_figure(group: Group) -> str:
    return f"ValueError: {group.error}" if group.error else percent(group.test_accuracy)
