"""The article's table, every cell derived by rule from what was measured. Pure functions."""

from __future__ import annotations

from normkit.study.results import Comparison
from normkit.study.summary import Summary
from normkit.study.table.axes import axes_row
from normkit.study.table.batch_size import batch_size_row
from normkit.study.table.cost import cost_row
from normkit.study.table.gap import gap_row
from normkit.study.table.headlines import headlines
from normkit.study.table.mode import mode_row
from normkit.study.table.row import COLUMNS, REFERENCE, Line, Row
from normkit.study.table.use import use_row

__all__ = ["COLUMNS", "REFERENCE", "Line", "Row", "build_table", "headlines"]


def build_table(comparison: Comparison, summary: Summary) -> tuple[Row, ...]:
    """The article's five rows, and one for the difference between training and inference."""
    resolution = 1 / comparison.settings.test_images
    return (
        axes_row(comparison.axes),
        cost_row(summary),
        batch_size_row(summary, resolution),
        use_row(summary, resolution),
        gap_row(summary, resolution),
        mode_row(summary, resolution),
    )
