"""Row: how far each norm's outputs in training are from those in inference."""

from __future__ import annotations

from normkit.study.spread import RULE, differ
from normkit.study.summary import Group, Summary
from normkit.study.table.row import COLUMNS, ONE_SEED, REFERENCE, Line, Row
from normkit.study.wording import listing, plain, points

__all__ = ["mode_row"]


def mode_row(summary: Summary, resolution: float) -> Row:
    """Compare the two modes of the same trained network on the same test images."""
    norms = (*COLUMNS, REFERENCE)
    groups = {norm: _groups(summary, norm) for norm in norms}
    return Row(
        key="mode",
        title="Training against inference",
        rule="The same test images in the same batches through the same weights, layers once in training and "
        "once in inference mode: mean distance of the logits in standard deviations of the logits, and test "
        "accuracy of inference minus training mode. The number behind a network is its batch size. " + RULE,
        verdicts={norm: _verdict(groups[norm], resolution) for norm in norms},
        lines=tuple(
            Line(f"{name}, {figure}", {norm: word(groups[norm][name]) for norm in norms}, main)
            for name in groups[REFERENCE]
            for figure, word, main in (("logits", _distance, True), ("accuracy", _accuracy, False))
        ),
    )


def _groups(summary: Summary, norm: str) -> dict[str, Group]:
    # The architecture runs, then the smallest batch size of each sweep.
    groups = {
        f"{architecture} {group.runs[0].config.batch_size}": group
        for (architecture, other), group in sorted(summary.architecture.items())
        if other == norm
    }
    for (architecture, other), sizes in summary.sweep.items():
        if other == norm:
            groups[f"{architecture} {min(sizes)}"] = sizes[min(sizes)]
    return groups


def _distance(group: Group) -> str:
    return "0 exactly" if _is_identical(group) else plain(group.mode_shift, 2)


def _accuracy(group: Group) -> str:
    gap = group.mode_gap
    return "0 exactly" if gap.lowest == gap.highest == 0.0 else points(gap)


def _verdict(groups: dict[str, Group], resolution: float) -> str:
    if all(_is_identical(group) for group in groups.values()):
        return "outputs identical"
    signs = {
        name: differ(group.test_accuracy, group.batch_mode_accuracy, resolution)
        for name, group in groups.items()
        if not _is_identical(group)
    }
    if None in signs.values():
        return f"outputs differ; accuracy {ONE_SEED}"
    apart = [name for name, sign in signs.items() if sign]
    return f"outputs differ, accuracy {'too: ' + listing(apart) if apart else 'no difference seen'}"


def _is_identical(group: Group) -> bool:
    return group.mode_shift.highest == 0.0
