"""How far a run has come, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from normkit.bench.cases import Case

__all__ = ["show"]


@contextmanager
def show(total: int) -> Iterator[Callable[[int, Case], None]]:
    """A bar on a terminal, a line per case elsewhere. Yields what is to be called as each case starts."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda number, case: console.print(
            f"{number + 1}/{total} {case}", highlight=False, markup=False, soft_wrap=True
        )
        return
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda number, case: bar.update(task, completed=number, description=str(case))
        bar.update(task, completed=total, description="")
