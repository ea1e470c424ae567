"""The report: one HTML file from one comparison. It never measures."""

from normkit.study.report.render import render

__all__ = ["render"]
