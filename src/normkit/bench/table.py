"""Results as a table for the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
import platform

import torch
from rich.table import Table

import normkit as nk
from normkit.bench.cases import CONTENDERS
from normkit.bench.measure import Result, Timing

WIDTH = 170  # columns where the output is not a terminal


def to_json(results: list[Result]) -> str:
    """The results, and the machine they were measured on."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "normkit": nk.__version__,
        "kernels": {device: str(backend) for device, backend in nk.backends().items()},
    }
    cases = [dataclasses.asdict(result) for result in results]
    return json.dumps({"schema": 1, "machine": machine, "results": cases}, indent=1) + "\n"


def to_table(results: list[Result]) -> Table:
    """A row per case: each contender's time, normkit's bandwidth, and how it stands to copy and peers."""
    threads = torch.get_num_threads()
    table = Table(title=rf"Median \[p10, p90] of calls by turns, warm memory, {threads} threads")
    table.add_column("case")
    for heading in ("copy", *CONTENDERS, "GB/s", "time / copy", "times as fast as PyTorch"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(str(result.case), _time(result.copy), *_cells(result))
    return table


def _cells(result: Result) -> list[str]:
    times = [_time(result.times[name]) if name in result.times else "wrong" for name in CONTENDERS]
    if result.wrong:
        return [*times, "-", "-", "-"]
    ours = result.times["normkit"].median
    return [
        *times,
        f"{result.case.least_bytes / ours / 1e9:.1f}",
        f"{ours / result.copy.median:.2f}",
        f"{result.ratio('normkit', to='PyTorch'):.2f}",
    ]


def _time(t: Timing) -> str:
    scale, unit = (1e6, "us") if t.median < 1e-3 else (1e3, "ms")
    return rf"{t.median * scale:.2f} \[{t.p10 * scale:.2f}, {t.p90 * scale:.2f}] {unit}"
