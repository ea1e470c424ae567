"""The report: one HTML file from one run. It never measures."""

from normkit.bench.report.render import render

__all__ = ["render"]
