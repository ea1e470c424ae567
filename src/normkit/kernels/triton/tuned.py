"""Launches measured to beat `launch`'s formulas: ``python benchmarks/tune.py`` on a GPU adds its own.

(architecture, pass, bytes of the accumulation dtype, columns) to (rows, warps). An architecture without
entries is launched by the formulas.
"""

from __future__ import annotations

TUNED: dict[tuple[str, str, int, int], tuple[int, int]] = {}
