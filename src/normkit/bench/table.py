"""A run in the terminal: a table and a summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from normkit.bench.contenders.registry import CONTENDERS, OURS
from normkit.bench.machine import Machine
from normkit.bench.results import Bench, Row
from normkit.bench.summary import BEHIND, Summary, by_group
from normkit.bench.wording import duration, percent, spread, times

__all__ = ["WIDTH", "print_bench", "sentences"]

WIDTH = 200  # columns where the output is not a terminal; from here on there is room for p10 and p90


def print_bench(console: Console, bench: Bench, summary: Summary) -> None:
    """The table, how to read it, and the summary."""
    compact = console.width < WIDTH
    console.print(_table(bench, compact))
    for line in (_legend(bench.machine, compact), "", *sentences(bench, summary)):
        console.print(Text(line))


def _table(bench: Bench, compact: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=not compact)
    titles = [CONTENDERS[peer].title for peer in bench.settings.peers]
    for heading in ("normkit", "fresh", "GB/s", "of floor", *titles):
        table.add_column(heading, justify="right")
    for group, rows in by_group(bench.rows).items():
        table.add_section()
        table.add_row(Text(group, style="bold"))
        for row in rows:
            cells = _cells(row, bench.settings.peers, compact)
            table.add_row(*map(Text, cells), style="" if row.steady else "dim")
    return table


def _cells(row: Row, peers: Sequence[str], compact: bool) -> Iterator[str]:
    unsteady = "" if row.steady else f" unsteady {percent(min(row.drifts))}"
    yield f"  {row.case.shape_name} {row.case.dtype}{unsteady}"
    ours = row.contenders[OURS]
    if ours.warm is None:
        yield from (f"wrong {times(ours.error or 0)}", "-", "-", "-")
    else:
        share = row.share_of_floor
        yield duration(ours.warm.median) if compact else spread(ours.warm)
        yield "-" if ours.fresh is None else duration(ours.fresh.median)
        yield f"{row.counted_bytes / ours.warm.median / 1e9:.1f}"
        yield "-" if share is None else percent(share)
    for peer in peers:
        yield _peer(row, peer, compact)


def _peer(row: Row, peer: str, compact: bool) -> str:
    entry = row.contenders.get(peer)
    if entry is None or entry.unavailable is not None:
        return "-"
    if entry.warm is None:
        return f"wrong {times(entry.error or 0)}"
    ratio = row.ratio(peer)
    time = duration(entry.warm.median) if compact else spread(entry.warm)
    return time if ratio is None else f"{time} {times(ratio)}"


def _legend(machine: Machine, compact: bool) -> str:
    how = (
        "calls recorded as CUDA graphs over operands that take turns"
        if machine.device == "cuda"
        else f"calls by turns, {machine.threads} threads, outputs in memory in use; fresh: in new pages"
    )
    return (
        f"Medians{'' if compact else ' [p10, p90]'} of {how}. GB/s: counted bytes. Of floor: the fastest "
        "copy of the same bytes is 100%. 1.50x: normkit is one and a half times as fast. Dim: the machine's "
        "speed changed."
    )


def sentences(bench: Bench, summary: Summary) -> Iterator[str]:
    """The summary, a line each."""
    if not bench.complete:
        yield f"Incomplete: {len(bench.rows)} cases so far."
    for peer, mean in summary.against.items():
        title, number = CONTENDERS[peer].title, _cases(mean.cases)
        yield f"{times(mean.value)} as fast as {title}, geometric mean of {number}"
    if summary.best is not None:
        yield (
            f"{times(summary.best.value)} as fast as the best contender of each case, geometric mean of "
            f"{_cases(summary.best.cases)}; {len(summary.behind)} slower than {BEHIND:g} of it"
            f"{':' if summary.behind else ''}"
        )
    for row in summary.behind:
        best = row.best_peer or ""
        yield f"  {times(row.ratio(best) or 0)} of {CONTENDERS[best].title}: {row.case}"
    for share in summary.shares:
        yield (
            f"{share.group}, {share.dtype}, over 1 MB: lowest {percent(share.lowest)} of the floor "
            f"({share.lowest_case.op} {share.lowest_case.shape_name}), median {percent(share.median)} "
            f"of {_cases(share.cases)}"
        )
    yield from _left_out(summary)


def _left_out(summary: Summary) -> Iterator[str]:
    if summary.refused:
        yield (
            f"Refused, as the machine's speed changed while they were measured, and not counted above: "
            f"{_cases(len(summary.refused))}:"
        )
        for row in summary.refused:
            least, attempts = percent(min(row.drifts)), len(row.drifts)
            yield f"  by {least} in the steadiest of {attempts} attempts: {row.case}"
    for row in summary.wrong:
        yield f"normkit is WRONG, by {row.contenders[OURS].error:.3g} of what passes: {row.case}"


def _cases(number: int) -> str:
    return f"{number} case{'' if number == 1 else 's'}"
