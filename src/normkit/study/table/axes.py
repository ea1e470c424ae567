"""Row: which axes each norm normalises."""

from __future__ import annotations

from collections.abc import Sequence

from normkit.study.results import Axes
from normkit.study.table.row import COLUMNS, Line, Row
from normkit.study.wording import listing

__all__ = ["axes_row"]


def axes_row(axes: Sequence[Axes]) -> Row:
    """Name the axes along which the probe saw elements share statistics."""
    training = {one.norm: one for one in axes if one.training and one.norm in COLUMNS}
    inference = {one.norm: one for one in axes if not one.training and one.norm in COLUMNS}
    return Row(
        key="axes",
        title="Axes normalised",
        rule="One input element is changed at a time; the axes along which other outputs change with it are "
        "the axes normalised. Centred: a constant added to the whole input changes nothing. Scaled: nor does "
        "a positive factor.",
        verdicts={norm: _axes_words(one) for norm, one in training.items()},
        lines=(
            Line("input", {norm: ", ".join(one.layout) for norm, one in training.items()}),
            Line(
                "separately for each", {norm: listing(one.separate) or "-" for norm, one in training.items()}
            ),
            Line("each of them is", {norm: _treatment(one) for norm, one in training.items()}),
            Line("in inference", {norm: _inference(training[norm], one) for norm, one in inference.items()}),
        ),
    )


def _inference(training: Axes, inference: Axes) -> str:
    same = all(
        getattr(training, field) == getattr(inference, field)
        for field in ("shared", "grouped", "centred", "scaled")
    )
    return "the same axes" if same else _axes_words(inference)


def _axes_words(axes: Axes) -> str:
    parts = [*axes.shared, *(f"groups of {name}" for name in axes.grouped)]
    return ", ".join(parts) if parts else "none: each element for itself"


def _treatment(axes: Axes) -> str:
    done = [word for word, is_done in (("centred", axes.centred), ("scaled", axes.scaled)) if is_done]
    undone = [word for word, is_done in (("centred", axes.centred), ("scaled", axes.scaled)) if not is_done]
    if not done:
        return "neither centred nor scaled"
    return " and ".join(done) + (f", not {undone[0]}" if undone else "")
