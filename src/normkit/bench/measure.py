"""One case: every contender checked against the reference, then timed by turns with the floor's copies.

On the CPU; `gpu.measure` is its like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from normkit.bench import floor, memory
from normkit.bench.cases import LARGE, Case
from normkit.bench.check import worst_error
from normkit.bench.contenders import OURS, Prepared, Unavailable, prepare
from normkit.bench.drift import ATTEMPTS, MOST, drift, speedometer
from normkit.bench.machine import Machine
from normkit.bench.operands import Operands, Results, exact, make_operands
from normkit.bench.results import Entry, Row
from normkit.bench.timing import Call, Clock, Samples, Timing, rounded, take_turns
from normkit.bench.traffic import traffic

__all__ = ["Attempt", "measure", "steadiest"]

FRESH_ROUNDS, FEWEST_FRESH = 3, 3  # one fresh sample for three warm ones: page faults spread little


@dataclass(frozen=True)
class Attempt:
    """Times of one go at a case, by name, and how much the machine's speed changed meanwhile."""

    times: dict[str, Timing]
    drift: float


def measure(case: Case, peers: Sequence[str], rounds: int, machine: Machine) -> Row:
    """Check, then time. `memory.keep_memory` has to be called before, once."""
    operands = make_operands(case)
    wanted = exact(case)
    counted = traffic(case, machine)
    # One inference mode around all, as in serving: entering it costs as much as a small norm.
    with torch.inference_mode(mode=case.direction == "forward"):
        ready, entries = _checked(case, operands, wanted, (OURS, *peers), machine.threads)
        calls: dict[str, Call] = {name: prepared.call for name, prepared in ready.items()}
        floors = floor.variants(operands.x, operands.upstream, torch.empty_like(operands.x), counted.parts)
        calls |= {f"{part}/{way}": call for part, ways in floors.items() for way, call in ways.items()}
        meter = speedometer(operands.x.detach(), torch.empty_like(operands.x))
        large = case.tensor_bytes >= LARGE
        allocating = {name: p.call for name, p in ready.items() if large and p.allocates}
        with memory.one_place():
            kept, drifts = steadiest(calls, meter, rounds)
        # Only for a case that counts: page faults are slow, and a refused case has taken long already.
        fresh = _fresh(allocating, meter, rounds) if kept.drift <= MOST else {}
    return Row(
        case=case,
        reads=counted.reads,
        writes=counted.writes,
        floor={part: {way: kept.times[f"{part}/{way}"] for way in ways} for part, ways in floors.items()},
        contenders={
            name: replace(entry, warm=kept.times.get(name), fresh=fresh.get(name))
            for name, entry in entries.items()
        },
        drifts=drifts,
        steady=kept.drift <= MOST,
    )


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


def steadiest(
    calls: dict[str, Call], meter: Call, rounds: int, clock: Clock | None = None
) -> tuple[Attempt, tuple[float, ...]]:
    """Time `calls`; again where the machine's speed changed meanwhile, `ATTEMPTS` times at most.

    The steadiest attempt, and the drift of each.
    """
    attempts: list[Attempt] = []
    while len(attempts) < ATTEMPTS and not (attempts and attempts[-1].drift <= MOST):
        samples, speed = take_turns(calls, meter, rounds, clock=clock)
        attempts.append(Attempt(_timings(samples), rounded(drift(speed))))
    return min(attempts, key=lambda attempt: attempt.drift), tuple(attempt.drift for attempt in attempts)


def _fresh(calls: dict[str, Call], meter: Call, rounds: int) -> dict[str, Timing]:
    if not calls:
        return {}
    with memory.fresh() as possible:
        if not possible:
            return {}
        samples, _ = take_turns(calls, meter, max(1, rounds // FRESH_ROUNDS), FEWEST_FRESH)
    return _timings(samples)


def _timings(all_samples: dict[str, Samples]) -> dict[str, Timing]:
    return {name: samples.timing() for name, samples in all_samples.items()}
