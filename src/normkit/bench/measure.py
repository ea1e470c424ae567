"""One case: every contender checked against the reference, then timed by turns with the floor's copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from normkit.bench import floor, memory
from normkit.bench.cases import LARGE, Case
from normkit.bench.check import worst_error
from normkit.bench.contenders import OURS, Prepared, Unavailable, prepare
from normkit.bench.drift import ATTEMPTS, MOST, drift, speedometer
from normkit.bench.operands import Operands, Results, exact, make_operands
from normkit.bench.results import Entry, Row
from normkit.bench.timing import Call, Samples, Timing, rounded, take_turns
from normkit.bench.traffic import Traffic, l2_bytes, traffic

__all__ = ["measure"]

FRESH_ROUNDS = 3  # one fresh sample for so many warm ones: page faults cost time and spread little


@dataclass(frozen=True)
class _Attempt:
    """Times of one go at a case, by name, and how much the machine's speed changed meanwhile."""

    warm: dict[str, Timing]
    fresh: dict[str, Timing]
    drift: float


def measure(case: Case, peers: Sequence[str], rounds: int, threads: int) -> Row:
    """Check, then time; again where the machine's speed changed meanwhile, `ATTEMPTS` times at most.

    Of several attempts the steadiest is kept. Memory has to be kept by
    `memory.keep_memory` for warm outputs to be so.
    """
    operands = make_operands(case)
    wanted = exact(case)
    counted = traffic(case, l2_bytes(), threads)
    # One inference mode around all, as in serving: entering it costs as much as a small norm.
    with torch.inference_mode(mode=case.direction == "forward"):
        ready, entries = _checked(case, operands, wanted, (OURS, *peers), threads)
        calls: dict[str, Call] = {name: prepared.call for name, prepared in ready.items()}
        floors = floor.variants(operands.x, operands.upstream, torch.empty_like(operands.x), counted.parts)
        calls |= {f"{part}/{way}": call for part, ways in floors.items() for way, call in ways.items()}
        meter = speedometer(operands.x.detach(), torch.empty_like(operands.x))
        large = case.tensor_bytes >= LARGE
        allocating = {name: p.call for name, p in ready.items() if large and p.allocates}
        attempts: list[_Attempt] = []
        while len(attempts) < ATTEMPTS and not (attempts and attempts[-1].drift <= MOST):
            attempts.append(_attempt(calls, allocating, meter, rounds))
    return _row(case, counted, entries, floors, attempts)


def _checked(
    case: Case, operands: Operands, wanted: Results, names: Sequence[str], threads: int
) -> tuple[dict[str, Prepared], dict[str, Entry]]:
    """The contenders whose results are right, and an entry for every one."""
    ready: dict[str, Prepared] = {}
    entries: dict[str, Entry] = {}
    for name in names:
        try:
            prepared = prepare(name, case, operands, threads)
        except Unavailable as reason:
            entries[name] = Entry(unavailable=str(reason))
            continue
        error = worst_error(case, prepared.results(), wanted)
        entries[name] = Entry(error=rounded(error))
        if error <= 1:
            ready[name] = prepared
    return ready, entries


def _attempt(calls: dict[str, Call], allocating: dict[str, Call], meter: Call, rounds: int) -> _Attempt:
    warm, speed = take_turns(calls, meter, rounds)
    fresh: dict[str, Samples] = {}
    if allocating:
        with memory.fresh() as possible:
            if possible:
                fresh, more = take_turns(allocating, meter, max(1, rounds // FRESH_ROUNDS))
                speed += more
    return _Attempt(
        {name: samples.timing() for name, samples in warm.items()},
        {name: samples.timing() for name, samples in fresh.items()},
        rounded(drift(speed)),
    )


def _row(
    case: Case,
    counted: Traffic,
    entries: dict[str, Entry],
    floors: dict[str, floor.Variants],
    attempts: list[_Attempt],
) -> Row:
    kept = min(attempts, key=lambda attempt: attempt.drift)
    return Row(
        case=case,
        reads=counted.reads,
        writes=counted.writes,
        floor={part: {way: kept.warm[f"{part}/{way}"] for way in ways} for part, ways in floors.items()},
        contenders={
            name: Entry(kept.warm.get(name), kept.fresh.get(name), entry.error, entry.unavailable)
            for name, entry in entries.items()
        },
        drifts=tuple(attempt.drift for attempt in attempts),
        steady=kept.drift <= MOST,
    )
