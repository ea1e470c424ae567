"""What is measured, as plain records, and their way to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "SCHEMA",
    "Axes",
    "Checkpoint",
    "Comparison",
    "Cost",
    "Machine",
    "Run",
    "RunConfig",
    "Settings",
    "load",
]

SCHEMA = "normkit-compare/1"


@dataclass(frozen=True)
class Settings:
    """What one comparison measures; everything the report says about the set-up is read from here."""

    rehearsal: bool  # too short to choose by
    seeds: int
    workers: int
    train_images: int
    test_images: int
    architectures: tuple[str, ...]
    norms: tuple[str, ...]
    learning_rates: tuple[float, ...]  # the grid of the architecture runs, the same for every norm
    batch_size: int  # of the architecture runs
    samples: int  # images seen in an architecture run
    sweep_architectures: tuple[str, ...]
    sweep_batch_sizes: tuple[int, ...]
    sweep_samples: int  # images seen in a run of the batch-size sweep, whatever the batch size
    sweep_learning_rate: float  # at `batch_size`; at batch size B it is sqrt(B / batch_size) times this
    stream_samples: int  # images seen in a streaming run, each once, one at a time
    cost_elements: int
    cost_repeats: int


@dataclass(frozen=True)
class Machine:
    """Where the figures were measured."""

    cpu: str
    cores: int
    threads: int
    system: str
    python: str
    torch: str
    normkit: str
    backends: str


@dataclass(frozen=True)
class Axes:
    """What probing found about one layer in one mode."""

    norm: str
    training: bool
    layout: tuple[str, ...]  # the names of the input's axes, such as ("batch", "channel", "height", "width")
    shape: tuple[int, ...]
    shared: tuple[str, ...]  # axes along which all elements share statistics
    grouped: tuple[str, ...]  # axes along which only some do
    separate: tuple[str, ...]  # axes along which none do
    centred: bool  # adding one constant to the whole input leaves the output as it was
    scaled: bool  # multiplying the whole input by a positive constant leaves the output as it was


@dataclass(frozen=True)
class Cost:
    """Times of one layer on one input; sample `i` of `copy_seconds` was taken next to `seconds[i]`."""

    norm: str
    implementation: str  # "normkit" or "torch"
    shape: tuple[int, ...]
    backward: bool  # forward and backward pass together, or the forward pass alone
    moved_bytes: int  # the least any implementation moves: see `cost.least_bytes`
    copy_bytes: int  # what the copy moves: the tensor read once and written once
    max_error: float  # largest error against float64, in units of the tolerance; above 1: not timed
    seconds: tuple[float, ...]
    copy_seconds: tuple[float, ...]


@dataclass(frozen=True)
class RunConfig:
    """One training run; its result depends on nothing else."""

    experiment: str  # "architecture", "batch size" or "streaming"
    architecture: str
    norm: str
    seed: int
    learning_rate: float
    batch_size: int
    samples: int


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after `samples` images: mean training loss since the last one, test accuracy now."""

    samples: int
    train_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class Run:
    """What became of one training run. Where it ended in an error, only `config` and `error` are set."""

    config: RunConfig
    error: str | None = None
    curve: tuple[Checkpoint, ...] = ()
    train_accuracy: float | None = None
    train_loss: float | None = None
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    batch_mode_accuracy: float | None = None  # test accuracy with the layers left in training mode
    batch_mode_shift: float | None = None  # mean |training-mode logit - inference logit| / std of logits


@dataclass(frozen=True)
class Comparison:
    """All measurements of one `normkit compare`."""

    created: str
    machine: Machine
    settings: Settings
    axes: tuple[Axes, ...]
    costs: tuple[Cost, ...]
    runs: tuple[Run, ...]

    def to_json(self, **derived: object) -> str:
        """The comparison as JSON text; `derived` is added for readers and ignored by `load`."""
        content = {"schema": SCHEMA, **dataclasses.asdict(self), **derived}
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def load(path: Path) -> Comparison:
    """Read a comparison saved by `Comparison.to_json`.

    Raises OSError where the file cannot be read and ValueError where it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError("not a file written by `normkit compare --json`: it has no 'schema'")
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA!r}, got {content['schema']!r}")
    try:
        empty = [key for key in ("axes", "costs", "runs") if not content[key]]
        if empty:
            raise ValueError(f"damaged or incomplete: no {empty[0]}")
        return _comparison(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged or incomplete: {error}") from error


def _comparison(content: Mapping[str, Any]) -> Comparison:
    return Comparison(
        created=str(content["created"]),
        machine=_record(Machine, content["machine"]),
        settings=_record(Settings, content["settings"]),
        axes=tuple(_record(Axes, item) for item in content["axes"]),
        costs=tuple(_record(Cost, item) for item in content["costs"]),
        runs=tuple(_run(item) for item in content["runs"]),
    )


def _run(content: Mapping[str, Any]) -> Run:
    curve = tuple(_record(Checkpoint, item) for item in content["curve"])
    return _record(Run, {**content, "config": _record(RunConfig, content["config"]), "curve": curve})


Record = TypeVar("Record")


def _record(kind: type[Record], content: Mapping[str, Any]) -> Record:
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        value = content.get(field.name)
        optional = value is None and "None" in str(field.type)
        if str(field.type).startswith(("float", "int")) and not (optional or isinstance(value, int | float)):
            raise TypeError(f"{field.name} must be a number, got {value!r}")
    # JSON has no tuples: every list of a record was one.
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
