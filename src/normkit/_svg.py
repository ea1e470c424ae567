"""A matplotlib figure as SVG to stand inside an HTML page: small, themed by the page, the same every time."""

from __future__ import annotations

import html
import io
import re
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "MARKERS", "MUTED", "SURFACE", "panel", "to_svg"]

# Stand-ins that `to_svg` replaces by the page's own CSS variables, so that one drawing serves a light
# and a dark page.
INK, MUTED, SURFACE = "#010101", "#020202", "#030303"
COLOURS = {
    **{"none": "#040404", "batch": "#050505", "layer": "#060606", "rms": "#070707"},
    **{"pytorch": "#080808", "inductor": "#090909", "onnxruntime": "#0a0a0a", "jax": "#0b0b0b"},
}
MARKERS = {"none": "o", "batch": "s", "layer": "^", "rms": "D"}
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    SURFACE: "var(--surface)",
    **{colour: f"var(--{name})" for name, colour in COLOURS.items()},
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
}


def panel(height: float = 2.5) -> tuple[Figure, Axes]:
    """A transparent figure 4.6 inches wide with one set of axes, in the report's style."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
    return figure, axes


def to_svg(figure: Figure, name: str, label: str) -> str:
    """`figure` as an `<svg>` element.

    `name` keeps its ids apart from those of other figures, `label` is its text for screen readers.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    view_box = re.search(r'viewBox="[^"]+"', text)
    assert view_box is not None  # matplotlib writes one into every file
    body = text[text.index(">", text.index("<svg")) + 1 :]
    return f'<svg role="img" aria-label="{html.escape(label)}" {view_box.group()}>{body}'
