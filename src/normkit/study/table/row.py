"""What a table is made of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COLUMNS", "ONE_SEED", "REFERENCE", "UNSEEN", "Line", "Row"]

COLUMNS = ("batch", "layer", "rms")
REFERENCE = "none"
UNSEEN = "no difference seen"
ONE_SEED = "cannot be told from one seed"


@dataclass(frozen=True)
class Line:
    """One kind of figure, by norm."""

    label: str
    values: dict[str, str]
    main: bool = True  # whether it stands in the short table too, or in the full one alone


@dataclass(frozen=True)
class Row:
    """One row of the table: by norm a verdict in words, below it the figures it was drawn from."""

    key: str
    title: str
    rule: str
    verdicts: dict[str, str]
    lines: tuple[Line, ...]
