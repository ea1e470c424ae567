"""One case on a GPU: every contender checked against float64, then timed by turns with the floor's copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from normkit.bench.cases import Case
from normkit.bench.check import worst_error
from normkit.bench.contenders import OURS, Unavailable, on_torch, registry
from normkit.bench.drift import MOST
from normkit.bench.gpu import floor
from normkit.bench.gpu.replay import Replay, by_events, kernels, own_stream
from normkit.bench.machine import Machine
from normkit.bench.measure import steadiest
from normkit.bench.operands import Operands, Results, make_operands
from normkit.bench.results import Entry, Row
from normkit.bench.timing import Call, rounded
from normkit.bench.traffic import traffic

__all__ = ["exact", "how_many", "measure"]


def how_many(case: Case, l2_bytes: int) -> int:
    """Sets of operands to take in turn, so that one is out of the last cache when its turn comes again."""
    return min(64, max(2, math.ceil(4 * l2_bytes / (2 * case.tensor_bytes))))


def measure(case: Case, peers: Sequence[str], rounds: int, machine: Machine) -> Row:
    """Check, record, then time."""
    sets = [make_operands(case, machine.device, seed) for seed in range(how_many(case, machine.l2_bytes))]
    wanted = exact(case, sets[0])
    counted = traffic(case, machine)
    entries: dict[str, Entry] = {}
    launched: dict[str, tuple[str, ...]] = {}
    calls: dict[str, Call] = {}
    with torch.inference_mode(mode=case.direction == "forward"), own_stream():
        for name in (OURS, *peers):
            try:
                norm = registry.norm(name, case, sets[0], machine.device)
                error, launched[name], recorded = _record(case, norm, sets, wanted)
            except Unavailable as reason:
                entries[name] = Entry(unavailable=str(reason))
                continue
            except Exception as refusal:  # of any kind: peers have compilers of their own
                if name == OURS:
                    raise
                entries[name] = Entry(unavailable=_in_short(refusal))
                continue
            entries[name] = Entry(error=rounded(error))
            if recorded is not None:
                calls[name] = recorded
        floors = floor.variants([(o.x, o.upstream) for o in sets], counted.parts)
        calls |= {f"{part}/{way}": call for part, ways in floors.items() for way, call in ways.items()}
        meter = floor.plain_copy([o.x.detach() for o in sets])
        kept, drifts = steadiest(calls, meter, rounds, by_events)
    return Row(
        case=case,
        reads=counted.reads,
        writes=counted.writes,
        floor={part: {way: kept.times[f"{part}/{way}"] for way in ways} for part, ways in floors.items()},
        contenders={name: replace(entry, warm=kept.times.get(name)) for name, entry in entries.items()},
        drifts=drifts,
        steady=kept.drift <= MOST,
        kernels=launched,
    )


def _record(
    case: Case, norm: Any, sets: Sequence[Operands], wanted: Results
) -> tuple[float, tuple[str, ...], Replay | None]:
    """Its error, the kernels it launches, and where it is right its calls."""
    prepared = [on_torch.prepare_norm(case, operands.own_statistics(), norm) for operands in sets]
    error = worst_error(case, prepared[0].results(), wanted)
    launched = kernels(prepared[0].call)
    return error, launched, Replay([p.call for p in prepared]) if error <= 1 else None


def exact(case: Case, operands: Operands) -> Results:
    """All results by PyTorch's own functions in float64: the reference in NumPy would take minutes."""

    def wide(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.detach().double().requires_grad_(t.requires_grad)

    names = ("x", "weight", "bias", "upstream", "running_mean", "running_var")
    widened: Any = {name: wide(getattr(operands, name)) for name in names}
    o = Operands(**widened)
    return on_torch.prepare_norm(case, o, registry.norm("pytorch", case, o, o.x.device.type)).results()


def _in_short(refusal: Exception) -> str:
    lines = str(refusal).strip().splitlines()
    return f"{type(refusal).__name__}: {lines[0] if lines else ''}"[:200]
