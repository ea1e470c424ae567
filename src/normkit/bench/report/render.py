"""Fill the page's template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from normkit.bench import wording
from normkit.bench.contenders.registry import CONTENDERS, OURS
from normkit.bench.report.plots import NORM_COLOURS, Panel, legend_of, ratio_panels, roofline_panels
from normkit.bench.results import Bench
from normkit.bench.summary import Summary, by_group
from normkit.bench.table import sentences

__all__ = ["render"]


def render(bench: Bench, summary: Summary) -> str:
    """The report as one HTML page without scripts or outside resources; the same input, the same text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for name in ("duration", "spread", "times", "percent", "group_name"):
        environment.filters[name] = getattr(wording, name)
    template = environment.from_string(
        (Path(__file__).parent / "template.html.j2").read_text(encoding="utf-8")
    )
    ops, directions = legend_of([row.case for row in bench.rows])
    return template.render(
        bench=bench,
        machine=bench.machine,
        settings=bench.settings,
        sentences=list(sentences(bench, summary)),
        groups=by_group(bench.rows),
        contenders=CONTENDERS,
        ours=OURS,
        rooflines=_figures(roofline_panels(bench)),
        ratios=_figures(ratio_panels(bench)),
        ops=[(NORM_COLOURS[op], wording.OP_NAMES[op]) for op in ops],
        directions=[(direction, wording.DIRECTION_NAMES[direction]) for direction in directions],
        reasons=_reasons(bench),
        launched=_launched(bench),
    )


def _figures(panels: list[Panel]) -> list[tuple[str, Markup]]:
    return [(panel.title, Markup(panel.svg)) for panel in panels]


def _reasons(bench: Bench) -> list[tuple[str, str, int]]:
    """Who did not take part, why, and in how many cases."""
    return _counted(
        (name, entry.unavailable)
        for row in bench.rows
        for name, entry in row.contenders.items()
        if entry.unavailable is not None
    )


def _launched(bench: Bench) -> list[tuple[str, str, int]]:
    """Who launched which kernel on a GPU, and in how many cases."""
    return _counted(
        (name, kernel) for row in bench.rows for name, kernels in row.kernels.items() for kernel in kernels
    )


def _counted(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, int]]:
    return [(CONTENDERS[name].title, text, number) for (name, text), number in Counter(pairs).items()]
