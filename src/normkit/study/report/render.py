"""Fill the page's template."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from normkit.study.report.plots import draw
from normkit.study.results import Comparison
from normkit.study.summary import Summary
from normkit.study.table import COLUMNS, REFERENCE, Row, headlines
from normkit.study.wording import NAMES, listing

__all__ = ["render"]


def render(comparison: Comparison, summary: Summary, rows: tuple[Row, ...]) -> str:
    """The report as one HTML page without scripts or outside resources; the same input, the same text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["listing"] = listing
    template = environment.from_string(
        (Path(__file__).parent / "template.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        comparison=comparison,
        settings=comparison.settings,
        machine=comparison.machine,
        headlines=headlines(comparison, summary),
        rows=rows,
        columns=(*COLUMNS, REFERENCE),
        names=NAMES,
        panels={
            key: [(panel.title, Markup(panel.svg)) for panel in panels]
            for key, panels in draw(summary).items()
        },
        rates=_rates(summary),
    )


def _rates(summary: Summary) -> list[tuple[str, list[str]]]:
    """Per architecture the learning rates chosen, in the order of the columns."""
    names = sorted({architecture for architecture, _ in summary.architecture})
    return [
        (name, [f"{summary.architecture[name, norm].learning_rate:g}" for norm in (*COLUMNS, REFERENCE)])
        for name in names
    ]
