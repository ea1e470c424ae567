"""Row: in which architectures each norm does best, and how fast they learn."""

from __future__ import annotations

from normkit.study.spread import RULE, differ
from normkit.study.summary import GOAL, Group, Summary
from normkit.study.table.row import COLUMNS, ONE_SEED, REFERENCE, Line, Row
from normkit.study.wording import listing, percent

__all__ = ["architectures", "is_among_best", "use_row"]


def use_row(summary: Summary, resolution: float) -> Row:
    """Name the architectures in which no other norm is better."""
    norms = (*COLUMNS, REFERENCE)
    lines = []
    for architecture in architectures(summary):
        groups = {norm: summary.architecture[architecture, norm] for norm in norms}
        accuracy = {norm: percent(group.test_accuracy) for norm, group in groups.items()}
        speed = {norm: _speed(group) for norm, group in groups.items()}
        lines.append(Line(architecture, accuracy))
        lines.append(Line(f"{architecture}, images to {GOAL:.0%}", speed, main=False))
    return Row(
        key="use",
        title="Where it suits",
        rule="Test accuracy at the learning rate chosen on the validation images. Named are the networks "
        "where the norm is the best of the four or not different from it; * where no norm is so as well. "
        + RULE,
        verdicts={norm: _verdict(summary, norm, resolution) for norm in norms},
        lines=tuple(lines),
    )


def architectures(summary: Summary) -> tuple[str, ...]:
    """The architectures trained, by name."""
    return tuple(sorted({architecture for architecture, _ in summary.architecture}))


def is_among_best(summary: Summary, architecture: str, norm: str, resolution: float) -> bool | None:
    """Whether no other norm is better by the rule than `norm`; None where one seed tells nothing."""
    mine = summary.architecture[architecture, norm].test_accuracy
    others = [
        group.test_accuracy for (name, _), group in summary.architecture.items() if name == architecture
    ]
    verdict = differ(max(others, key=lambda spread: spread.mean), mine, resolution)
    return None if verdict is None else verdict == 0


def _verdict(summary: Summary, norm: str, resolution: float) -> str:
    suits = []
    for architecture in architectures(summary):
        among_best = is_among_best(summary, architecture, norm, resolution)
        if among_best is None:
            return ONE_SEED
        if among_best:
            needless = norm != REFERENCE and is_among_best(summary, architecture, REFERENCE, resolution)
            suits.append(architecture + ("*" if needless else ""))
    return listing(suits) or "nowhere among the best"


def _speed(group: Group) -> str:
    reached = [images for images in group.images_to_goal if images is not None]
    if not reached:
        return "not reached"
    low, high = min(reached), max(reached)
    among = "" if len(reached) == len(group.runs) else f", {len(reached)} of {len(group.runs)} seeds"
    return (f"{low:,}" if low == high else f"{low:,} to {high:,}") + among
