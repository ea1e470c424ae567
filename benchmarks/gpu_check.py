"""All that a GPU has to show, in eight minutes and one JSON file: ``python benchmarks/gpu_check.py [FILE]``

The host's time for an eager call, the tests on the GPU, how near normkit alone comes to the floor (`alone`),
and the bench's cases with all contenders (`bench`), the most telling first, until the time is over; what each
has under `complete` says whether it sufficed for all. What the contenders of the first cases compile is
compiled beside the tests, so that the bench finds it. FILE is by default in `results/gpu/`, named by GPU and
versions. Runs from a checkout, installed or not. The exit status is 1 where a test failed, a result was wrong
or there was no time for any case.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import signal
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
from normkit.bench.contenders import on_torch, registry  # noqa: E402
from normkit.bench.machine import Machine, this_machine  # noqa: E402
from normkit.bench.operands import make_operands  # noqa: E402
from normkit.bench.results import Bench, Settings  # noqa: E402

SCHEMA = "normkit-gpu-check/1"
RESULTS = ROOT / "benchmarks/results/gpu"
SECONDS, TEST_SECONDS = 8 * 60, 5 * 60
MARGIN = 20.0  # for a case that is under way when the time is over
ALONE = 0.4  # of the time that the tests leave
ROUNDS = 5
WIDTHS = ((4096, 65536, 512, 16384, 262144), (1024, 8192, 32768, 131072), (2048, 256))
PROCESSES, COMPILED_AHEAD = 6, 40  # that compile, and cases that they do it for
F = torch.nn.functional


def main() -> int:
    start = time.monotonic()
    options = parsed()
    if not torch.cuda.is_available():
        print("gpu_check: PyTorch finds no GPU here", file=sys.stderr)
        return 2
    if options.compile is not None:
        compile_share(*options.compile)
        return 0
    machine = this_machine("cuda")
    target = options.file or RESULTS / f"{machine.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"schema": SCHEMA, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")}

    def save(**more: Any) -> None:
        report.update(more)
        unfinished = target.with_suffix(".part")
        unfinished.write_text(json.dumps(report) + "\n", encoding="utf-8")
        unfinished.replace(target)

    save(machine=dataclasses.asdict(machine), host_us=host_times())
    with compiling():
        save(tests=run_tests(min(TEST_SECONDS, 0.6 * options.seconds)))
    print(json.dumps({name: report[name] for name in ("host_us", "tests")}, indent=1), flush=True)
    end = start + options.seconds - MARGIN
    wrong = False
    for name, peers, share in (("alone", (), ALONE), ("bench", registry.peers("cuda"), 1.0)):
        now = time.monotonic()
        until = now + share * (end - now)
        bench = run_bench(machine, peers, until, lambda b, n=name: save(**{n: json.loads(b.to_json())}))
        found = summary.summarise(bench)
        wrong = wrong or bool(found.wrong) or not bench.rows
        print("\n".join(table.sentences(bench, found)), flush=True)
    print(f"{time.monotonic() - start:.0f} s; all of it: {target}")
    return int(report["tests"]["exit_status"] != 0 or wrong)


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="All that a GPU has to show, in one JSON file.")
    parser.add_argument("file", nargs="?", type=Path, help="the JSON file")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it may take")
    parser.add_argument("--compile", nargs=2, type=int, metavar=("I", "N"), help=argparse.SUPPRESS)
    return parser.parse_args()


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Have other processes fill the compilers' caches, meanwhile, in what time the tests leave them."""
    ours = ["nice", "-n", "19", sys.executable, "-W", "ignore", __file__, "--compile"]
    processes = [
        subprocess.Popen(
            [*ours, str(i), str(PROCESSES)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for i in range(PROCESSES)
    ]
    try:
        yield
    finally:  # what is not compiled by now, the bench compiles
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def compile_share(i: int, n: int) -> None:
    """Every n-th of the first cases, once: what fails will fail in the bench, and be told there."""
    torch.set_num_threads(1)
    for case in todo()[:COMPILED_AHEAD][i::n]:
        operands = make_operands(case, "cuda")
        with torch.inference_mode(mode=case.direction == "forward"):
            for name in (registry.OURS, *registry.peers("cuda")):
                with contextlib.suppress(Exception):
                    norm = registry.norm(name, case, operands, "cuda")
                    on_torch.prepare_norm(case, operands.own_statistics(), norm).call()
        del operands
        torch.cuda.empty_cache()


def run_tests(seconds: float) -> dict[str, Any]:
    """What pytest says of the tests that need a GPU; side by side, where that is installed."""
    began = time.monotonic()
    several = ["-n", "auto"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "-W", "default", *several, "tests/gpu"]
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # with the processes that tests start, to be stopped with them
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, status = process.communicate()[0] + "\nstopped: out of time", -1
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
    calls = {}
    for name, functions in (("normkit", nk.functional), ("PyTorch", F)):
        calls |= {
            f"{name} rms_norm": functools.partial(functions.rms_norm, x, (4096,), weight, 1e-5),
            f"{name} layer_norm": functools.partial(functions.layer_norm, x, (4096,), weight, bias, 1e-5),
            f"{name} batch_norm": functools.partial(
                functions.batch_norm, image, mean, var, gain, shift, False
            ),
        }
    work_for(0.5)
    with torch.inference_mode():
        return microseconds(calls)


def work_for(seconds: float) -> None:
    """Have the GPU leave the low clock that it idles at."""
    x = torch.randn(2**26, device="cuda")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        x.neg_()
        torch.cuda.synchronize()


def microseconds(
    calls: dict[str, Callable[[], object]], times: int = 200, rounds: int = 50
) -> dict[str, float]:
    """The medians of calls' times on the host, by turns: it may be slower at one time than at another.

    The GPU is waited for in between: its queue is never full. The first calls after that are not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            torch.cuda.synchronize()
            for _ in range(times // 10):
                call()
            began = time.perf_counter()
            for _ in range(times):
                call()
            taken[name].append((time.perf_counter() - began) / times * 1e6)
    return {name: round(statistics.median(them), 2) for name, them in taken.items()}


def run_bench(
    machine: Machine, peers: tuple[str, ...], deadline: float, saved: Callable[[Bench], None]
) -> Bench:
    """The bench next to `peers`, until the time is over."""
    settings = Settings(ROUNDS, peers)
    cases_left = todo()
    done = Bench("", False, machine, settings, ())
    for number, case in enumerate(cases_left, start=1):
        if time.monotonic() > deadline:
            break
        print(f"{number}/{len(cases_left)} {case}", flush=True)
        done = run.run(cases_left[:number], machine, settings, kept=done.rows)
        done = dataclasses.replace(done, complete=number == len(cases_left))
        saved(done)
        torch.cuda.empty_cache()
    return done


def todo() -> list[Case]:
    """All cases, each once, the most telling first: widths and images, by dtype; then what is small."""
    images = cases.GROUPS["images"]
    found: list[Case] = []
    for place, widths in enumerate(WIDTHS):
        for dtype in reversed(cases.DEFAULT_DTYPES):
            found += [
                Case(op, (2**28 // width, width), direction, dtype)
                for width in widths
                for op in cases.ROW_OPS
                for direction in ("forward", "backward")
            ]
            found += cases.chosen(
                [images[place]], ("batch_norm_training",), (dtype,), ["forward", "forward+backward"]
            )
    found += cases.chosen(cases.GROUPS["decode"], directions=["forward", "forward+backward"])
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    sys.exit(main())
