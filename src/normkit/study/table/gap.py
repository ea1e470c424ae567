"""Row: how much each norm narrows the gap between training and test."""

from __future__ import annotations

from normkit.study.spread import RULE, differ
from normkit.study.summary import Summary
from normkit.study.table.row import COLUMNS, ONE_SEED, REFERENCE, UNSEEN, Line, Row
from normkit.study.table.use import architectures
from normkit.study.wording import listing, plain, points

__all__ = ["gap_row", "gap_signs"]


def gap_row(summary: Summary, resolution: float) -> Row:
    """Compare each norm's gap with that of the network without a norm."""
    norms = (*COLUMNS, REFERENCE)
    lines = []
    for architecture in architectures(summary):
        groups = {norm: summary.architecture[architecture, norm] for norm in norms}
        accuracy = {norm: points(group.accuracy_gap) for norm, group in groups.items()}
        lines.append(Line(f"{architecture}, accuracy", accuracy))
        loss = {norm: f"{plain(group.loss_gap)} nats" for norm, group in groups.items()}
        lines.append(Line(f"{architecture}, loss", loss, main=False))
    return Row(
        key="gap",
        title="Regularising effect",
        rule="Training minus test accuracy, and test minus training loss, both in inference mode at the end. "
        "The verdict compares the accuracy gap with that of the same network without a norm. " + RULE,
        verdicts={
            **{norm: _verdict(gap_signs(summary, norm, resolution)) for norm in COLUMNS},
            REFERENCE: "the reference",
        },
        lines=tuple(lines),
    )


def gap_signs(summary: Summary, norm: str, resolution: float) -> dict[str, int | None]:
    """Per architecture -1 where the norm's accuracy gap is smaller than without a norm, 1 where larger."""
    return {
        architecture: differ(
            summary.architecture[architecture, norm].accuracy_gap,
            summary.architecture[architecture, REFERENCE].accuracy_gap,
            resolution,
        )
        for architecture in architectures(summary)
    }


def _verdict(signs: dict[str, int | None]) -> str:
    if None in signs.values():
        return ONE_SEED
    smaller = [name for name, sign in signs.items() if sign == -1]
    larger = [name for name, sign in signs.items() if sign == 1]
    parts = [f"smaller gap: {listing(smaller)}"] if smaller else []
    parts += [f"larger gap: {listing(larger)}"] if larger else []
    return "; ".join(parts) or UNSEEN
