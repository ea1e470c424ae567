"""All that a GPU has to show, in eight minutes and one JSON file: ``python benchmarks/gpu_check.py [FILE]``

The tests on the GPU, the host's time for an eager call, and the bench's cases, the most telling first, until
the time is over; `bench.complete` says whether it sufficed for all. FILE is by default in `results/gpu/`,
named by GPU and versions. Runs from a checkout, installed or not. The exit status is 1 where a test failed,
a result was wrong or there was no time for any case.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402

import normkit as nk  # noqa: E402
from normkit.bench import cases, run, summary, table  # noqa: E402
from normkit.bench.cases import Case  # noqa: E402
from normkit.bench.contenders import registry  # noqa: E402
from normkit.bench.machine import Machine, this_machine  # noqa: E402
from normkit.bench.results import Bench, Settings  # noqa: E402

SCHEMA = "normkit-gpu-check/1"
RESULTS = ROOT / "benchmarks/results/gpu"
SECONDS, TEST_SECONDS = 8 * 60.0, 5 * 60.0
MARGIN = 20.0  # for a case that is under way when the time is over
ROUNDS = 7
WIDTHS = (4096, 65536, 16384, 512, 262144, 1024, 8192, 32768, 131072, 2048, 256)
F = torch.nn.functional


def main() -> int:
    start = time.monotonic()
    if not torch.cuda.is_available():
        print("gpu_check: PyTorch finds no GPU here", file=sys.stderr)
        return 2
    machine = this_machine("cuda")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / f"{machine.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"schema": SCHEMA, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")}

    def save(**more: Any) -> None:
        report.update(more)
        target.write_text(json.dumps(report) + "\n", encoding="utf-8")

    save(machine=dataclasses.asdict(machine), host_us=host_times())
    save(tests=run_tests(TEST_SECONDS))
    print(json.dumps({name: report[name] for name in ("host_us", "tests")}, indent=1), flush=True)
    bench = run_bench(
        machine, start + SECONDS - MARGIN, lambda bench: save(bench=json.loads(bench.to_json()))
    )
    found = summary.summarise(bench)
    print("\n".join(table.sentences(bench, found)))
    print(f"{time.monotonic() - start:.0f} s; all of it: {target}")
    return int(report["tests"]["exit_status"] != 0 or bool(found.wrong) or not bench.rows)


def run_tests(seconds: float) -> dict[str, Any]:
    """What pytest says of the tests that need a GPU; side by side, where that is installed."""
    began = time.monotonic()
    several = ["-n", "8"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "-W", "default", *several, "tests/gpu"]
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        status, output = -1, (late.stdout or b"").decode(errors="replace") + "\nstopped: out of time"
    lines = output.strip().splitlines()
    if status:
        print(output[-6000:])
    return {
        "exit_status": status,
        "seconds": round(time.monotonic() - began, 1),
        "summary": lines[-1] if lines else "",
        "failures": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
    }


def host_times() -> dict[str, float]:
    """Microseconds of the host for an eager inference call, whose kernels are shorter."""
    x, weight, bias = torch.randn(3, 4096, device="cuda", dtype=torch.bfloat16)
    image = torch.randn(1, 64, 8, 8, device="cuda")
    of_channels = torch.rand(4, 64, device="cuda")
    mean, var, gain, shift = of_channels
    times = {}
    with torch.inference_mode():
        for name, functions in (("normkit", nk.functional), ("PyTorch", F)):
            calls = {
                "rms_norm": functools.partial(functions.rms_norm, x, (4096,), weight, 1e-5),
                "layer_norm": functools.partial(functions.layer_norm, x, (4096,), weight, bias, 1e-5),
                "batch_norm": functools.partial(functions.batch_norm, image, mean, var, gain, shift, False),
            }
            times |= {f"{name} {what}": round(microseconds(call), 2) for what, call in calls.items()}
    return times


def microseconds(call: Callable[[], object], calls: int = 1000, rounds: int = 15) -> float:
    """The median of a call's time on the host; the GPU is waited for in between."""
    call()
    taken = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        taken.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(taken)


def run_bench(machine: Machine, deadline: float, saved: Callable[[Bench], None]) -> Bench:
    """The bench, until the time is over."""
    settings = Settings(ROUNDS, registry.peers("cuda"))
    todo = list(dict.fromkeys(telling_cases()))
    done = Bench("", False, machine, settings, ())
    for number, case in enumerate(todo, start=1):
        if time.monotonic() > deadline:
            break
        print(f"{number}/{len(todo)} {case}", flush=True)
        done = run.run(todo[:number], machine, settings, kept=done.rows)
        done = dataclasses.replace(done, complete=number == len(todo))
        saved(done)
    return done


def telling_cases() -> Iterator[Case]:
    """Width by width, then images, then what is small."""
    images = cases.GROUPS["images"]
    for place, width in enumerate(WIDTHS):
        shape = (2**28 // width, width)
        for dtype in cases.DEFAULT_DTYPES:
            for op in cases.ROW_OPS:
                for direction in ("forward", "backward"):
                    yield Case(op, shape, direction, dtype)
        if place < len(images):
            yield from cases.chosen(
                [images[place]], ("batch_norm_training",), ("bfloat16",), ["forward+backward"]
            )
    yield from cases.chosen(images, ("batch_norm_training",), directions=["forward", "forward+backward"])
    yield from cases.chosen(cases.GROUPS["decode"], directions=["forward", "forward+backward"])


if __name__ == "__main__":
    sys.exit(main())
