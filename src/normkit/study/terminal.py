"""Progress and table in the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from normkit.study import compare
from normkit.study.results import Comparison
from normkit.study.table import COLUMNS, REFERENCE, Row
from normkit.study.wording import NAMES

__all__ = ["print_findings", "show_progress"]

LABEL_WIDTH = 26  # the longest label
WIDTH = 120  # where the output is not a terminal
PLAIN_SECONDS = 10.0  # between two lines of progress, where there is no terminal to draw a bar in


@contextmanager
def show_progress(console: Console) -> Iterator[compare.Progress]:
    """A bar per stage on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        columns = TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %")
        with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
            tasks: dict[str, TaskID] = {}

            def draw(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done)

            yield draw
    else:
        yield _PlainLines(console)


class _PlainLines:
    """The start and end of each stage, and a line every `PLAIN_SECONDS` between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last: tuple[str, float] = ("", 0.0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.last[0] or done == total or now - self.last[1] > PLAIN_SECONDS:
            self.last = stage, now
            _line(self.console, f"{stage}: {done / total:.0%}")


def print_findings(
    console: Console, comparison: Comparison, rows: tuple[Row, ...], found: tuple[str, ...]
) -> None:
    """The table, what its figures are, and the findings."""
    columns = (*COLUMNS, REFERENCE)
    table = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("", min_width=LABEL_WIDTH)
    for norm in columns:
        table.add_column(NAMES[norm], ratio=1)
    for row in rows:
        verdicts = (row.verdicts.get(norm, "") for norm in columns)
        table.add_row(Text(row.title), *map(Text, verdicts), style="bold")
        for line in (line for line in row.lines if line.main):
            table.add_row(Text(f"  {line.label}"), *(Text(line.values.get(norm, "")) for norm in columns))
        table.add_section()
    console.print(table)
    seeds = comparison.settings.seeds
    _line(
        console,
        f"Mean ± standard deviation over {seeds} seed{'s' if seeds != 1 else ''}; times: median [p10, p90]. "
        "* without a norm as well. The report has the other figures.",
    )
    if comparison.settings.rehearsal:
        _line(console, "A rehearsal (--quick): too rough to choose by.")
    for sentence in found:
        _line(console, f"- {sentence}")


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)
