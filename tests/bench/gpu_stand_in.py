"""The bench of a GPU on a CPU: ``python -m tests.bench.gpu_stand_in``

Triton's interpreter runs the floor's loops; calls are repeated where a GPU would replay a graph, by the
host's clock. Prints, as JSON, the rows, and what the floor's loops wrote.
"""

import contextlib
import dataclasses
import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from normkit.bench import timing
from normkit.bench.cases import Case
from normkit.bench.gpu import floor, measure
from normkit.bench.results import Bench, Settings
from normkit.bench.summary import summarise
from normkit.bench.table import sentences
from normkit.kernels.triton import launch
from tests.process import ROOT

from .conftest import MACHINE

CASES = (
    Case("rms_norm", (8, 32), "forward"),
    Case("layer_norm", (8, 32), "forward+backward", "bfloat16"),
    Case("layer_norm", (8, 32), "backward"),
    Case("batch_norm_training", (4, 6, 5, 5), "forward+backward", channels_last=True),
)


class Repeated:
    """What a `Replay` is on a GPU."""

    def __init__(self, calls):
        self.list, self.calls = calls, len(calls)

    def __call__(self):
        for call in self.list:
            call()


def what_the_floor_moves():
    """What each way leaves in its target, of a and b."""
    a, b = torch.randn(5000), torch.randn(5000)
    moved = {}
    for part, ways in floor.variants([(a, b)], ("copy", "triad", "read", "read2")).items():
        for way, replay in ways.items():
            target = replay.list[0].args[3] if "Triton" in way else replay.list[0].func.__self__
            replay()
            first = int(way.split()[1]) if "Triton" in way else 0
            wanted = {"copy": a, "triad": a + b}.get(part)
            if wanted is None:
                wanted = (a if part == "read" else a + b)[:first].max().reshape(1)
            moved[f"{part}/{way}"] = bool(torch.equal(target[: len(wanted)], wanted))
    return moved


def what_tuning_finds(folder):
    """What `benchmarks/tune.py` keeps where anything is good enough, and the table that it writes."""
    spec = importlib.util.spec_from_file_location("tune", ROOT / "benchmarks" / "tune.py")
    tune = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tune)
    tune.DEVICE, tune.ELEMENTS, tune.ROUNDS, tune.GAIN = "cpu", 2**8, 3, 0.0
    tune.Replay, tune.by_events = Repeated, timing.by_wall
    tune.TABLE = Path(shutil.copy(tune.TABLE, folder))
    chip, found = launch.Chip(architecture="a_chip"), {}
    for which in ("forward", "backward"):
        winner = tune.best(which, 64, chip)
        found["a_chip", which, 4, 64] = (winner.rows, winner.warps)
    tune.write(found)
    return tune.TABLE.read_text(), [list(value) for value in found.values()]


def main():
    timing.SAMPLE_SECONDS = 1e-5
    measure.steadiest.__globals__["drift"] = lambda seconds: 0.01
    floor.Replay = measure.Replay = Repeated
    measure.own_stream = contextlib.nullcontext
    measure.kernels = lambda call: ("a_kernel",)
    measure.by_events = timing.by_wall
    measure.how_many = lambda case, l2_bytes: 2
    machine = dataclasses.replace(MACHINE, gpu="a GPU", l2_bytes=2**10)
    peers = ("pytorch", "liger", "quack")
    rows = tuple(measure.measure(case, peers, 3, machine) for case in CASES)
    bench = Bench("2026-01-01T00:00:00+00:00", True, machine, Settings(3, peers), rows)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        table, tuned = what_tuning_finds(folder)
    print(
        json.dumps(
            {
                "table": table,
                "tuned": tuned,
                "bench": json.loads(bench.to_json()),
                "moved": what_the_floor_moves(),
                "sentences": list(sentences(bench, summarise(bench))),
            }
        )
    )


if __name__ == "__main__":
    main()
