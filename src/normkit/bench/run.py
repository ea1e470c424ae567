"""A whole run: case after case, saved as it goes, taken up again where it was left."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence

from normkit.bench import memory
from normkit.bench.cases import Case
from normkit.bench.contenders.registry import OURS
from normkit.bench.machine import Machine
from normkit.bench.measure import measure
from normkit.bench.results import Bench, Row, Settings

__all__ = ["OURS", "kept_rows", "run"]


def run(
    cases: Sequence[Case],
    machine: Machine,
    settings: Settings,
    kept: Sequence[Row] = (),
    started: Callable[[int, Case], None] = lambda number, case: None,
    saved: Callable[[Bench], None] = lambda bench: None,
) -> Bench:
    """Measure `cases`, leaving out those that `kept` holds.

    started: called with each case's number before it is measured. saved: called after each with all
    there is so far.
    """
    memory.keep_memory()
    measure_one = measure
    if machine.device == "cuda":  # imported here: it needs Triton
        from normkit.bench.gpu.measure import measure as measure_one
    rows = {row.case: row for row in kept}
    for number, case in enumerate(cases):
        started(number, case)
        if case not in rows:
            rows[case] = measure_one(case, settings.peers, settings.rounds, machine)
            saved(_bench(cases, machine, settings, rows.values()))
    return _bench(cases, machine, settings, rows.values())


def kept_rows(earlier: Bench, machine: Machine, settings: Settings) -> tuple[Row, ...]:
    """The steady rows of an earlier run; one that was refused gets another chance.

    Raises ValueError where that run was made with other settings or on another machine.
    """
    if earlier.machine != machine:
        raise ValueError(f"that run was on {earlier.machine}, this is {machine}")
    if earlier.settings != settings:
        raise ValueError(f"that run was made with {earlier.settings}, this is {settings}")
    return tuple(row for row in earlier.rows if row.steady)


def _bench(cases: Sequence[Case], machine: Machine, settings: Settings, rows: Iterable[Row]) -> Bench:
    by_case = {row.case: row for row in rows}
    ordered = tuple(by_case.pop(case) for case in cases if case in by_case)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return Bench(now, len(ordered) == len(cases), machine, settings, ordered)
