"""What was measured, as plain records, and their way to JSON and back."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normkit.bench.cases import DIRECTIONS, DTYPES, OPS, Case
from normkit.bench.contenders.registry import CONTENDERS, OURS
from normkit.bench.machine import Machine
from normkit.bench.timing import Timing

__all__ = ["SCHEMA", "Bench", "Entry", "Row", "Settings", "load", "save"]

SCHEMA = "normkit-bench/3"


@dataclass(frozen=True)
class Settings:
    """How the figures were taken."""

    rounds: int
    peers: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One contender in one case.

    warm, fresh: times with outputs in memory in use and in new pages, None where not taken.
    error: largest error over the tolerance; above 1 the contender is wrong and untimed.
    unavailable: why it did not take part, else None.
    """

    warm: Timing | None = None
    fresh: Timing | None = None
    error: float | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class Row:
    """One case.

    reads, writes: tensors of the input's size counted as moved. floor: per part of the floor and way to
    move its bytes the time. drifts: the change of the copy's speed within each attempt. steady: whether
    the one kept stayed within what is allowed; else its figures are shown and claim nothing. kernels: on a
    GPU the names of those that each contender launched.
    """

    case: Case
    reads: int
    writes: int
    floor: dict[str, dict[str, Timing]]
    contenders: dict[str, Entry]
    drifts: tuple[float, ...]
    steady: bool
    kernels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def counted_bytes(self) -> int:
        """Bytes that any implementation must move."""
        return (self.reads + self.writes) * self.case.tensor_bytes

    @property
    def floor_seconds(self) -> float | None:
        """The fastest way for each part, added up; None where a part could not be timed."""
        if not all(self.floor.values()):
            return None
        return sum(min(timing.median for timing in ways.values()) for ways in self.floor.values())

    def seconds(self, contender: str) -> float | None:
        """Median seconds of a call with warm outputs."""
        entry = self.contenders.get(contender)
        return None if entry is None or entry.warm is None else entry.warm.median

    @property
    def share_of_floor(self) -> float | None:
        """How near normkit comes to the floor; 1 is as fast."""
        ours, floor = self.seconds(OURS), self.floor_seconds
        return None if ours is None or floor is None else floor / ours

    def ratio(self, contender: str) -> float | None:
        """How many times as fast as `contender` normkit is."""
        ours, theirs = self.seconds(OURS), self.seconds(contender)
        return None if ours is None or theirs is None else theirs / ours

    @property
    def best_peer(self) -> str | None:
        """The fastest contender other than normkit."""
        times = {name: seconds for name in self.contenders if (seconds := self.seconds(name)) is not None}
        times.pop(OURS, None)
        return min(times, key=lambda name: times[name]) if times else None


@dataclass(frozen=True)
class Bench:
    """All rows of a run, and where and how they were measured. `complete`: none was left out."""

    created: str
    complete: bool
    machine: Machine
    settings: Settings
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """As JSON text with one row per line."""
        head = dataclasses.asdict(dataclasses.replace(self, rows=()))
        del head["rows"]
        lines = (json.dumps(dataclasses.asdict(row), allow_nan=False) for row in self.rows)
        text = json.dumps({"schema": SCHEMA, **head}, indent=1, allow_nan=False)
        return text.removesuffix("\n}") + ',\n "rows": [\n' + ",\n".join(lines) + "\n]}\n"


def save(bench: Bench, path: Path) -> None:
    """Write `bench` so that an interruption leaves either the old file or the new one."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(bench.to_json(), encoding="utf-8")
    partial.replace(path)


def load(path: Path) -> Bench:
    """Read what `save` wrote.

    Raises OSError where the file cannot be read and ValueError where it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError("not a file written by `normkit bench --json`: it has no 'schema'")
    if content.pop("schema") != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA!r}: the file is of another version of normkit")
    bench: Bench = _read(Bench, content, "")
    if not bench.rows:
        raise ValueError("damaged or incomplete: it has no rows")
    for number, row in enumerate(bench.rows):
        _check(row, f"rows[{number}]")
    return bench


def _check(row: Row, where: str) -> None:
    case = row.case
    known = case.op in OPS and case.dtype in DTYPES and case.direction in DIRECTIONS
    names = set(row.contenders)
    if not known or not case.shape or OURS not in names or not names <= set(CONTENDERS):
        raise ValueError(f"damaged or incomplete: {where} is no case of the bench")
    ways = [timing for ways in row.floor.values() for timing in ways.values()]
    entries = [t for entry in row.contenders.values() for t in (entry.warm, entry.fresh) if t is not None]
    if not all(timing.median > 0 for timing in (*ways, *entries)) or not row.drifts or not row.floor:
        raise ValueError(f"damaged or incomplete: {where} holds times that are none")


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON gave it, as the type `kind` of a record's field."""
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _read(inner[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(inner[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _read(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if origin is None and type(value) is kind:
        return value
    raise ValueError(f"damaged or incomplete: {where} must be {kind}, got {str(value)[:40]!r}")


def _record(kind: Any, value: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    if not isinstance(value, Mapping) or set(value) != set(hints):
        raise ValueError(f"damaged or incomplete: {where or 'the file'} does not hold {', '.join(hints)}")
    return kind(
        **{name: _read(hint, value[name], f"{where}.{name}".lstrip(".")) for name, hint in hints.items()}
    )
