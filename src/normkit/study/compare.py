"""The whole comparison: what to run, in which order, on which processes."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import platform
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import datetime, timezone
from pathlib import Path

import torch

import normkit as nk
from normkit.study import cost, probe
from normkit.study.data import TEST_SIZE, TRAIN_SIZE
from normkit.study.models import ARCHITECTURES, NORMS
from normkit.study.results import Comparison, Machine, Run, RunConfig, Settings
from normkit.study.train import train

__all__ = ["Progress", "compare", "full", "plan", "quick"]

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


def full(seeds: int, workers: int) -> Settings:
    """The settings of `normkit compare`, about 90 seconds with three seeds on two cores."""
    return Settings(
        rehearsal=False,
        seeds=seeds,
        workers=workers,
        train_images=TRAIN_SIZE,
        test_images=TEST_SIZE,
        architectures=tuple(ARCHITECTURES),
        norms=NORMS,
        learning_rates=(2e-3, 8e-3),
        batch_size=64,
        samples=10_000,
        sweep_architectures=("MLP", "CNN"),
        sweep_batch_sizes=(2, 4, 8, 16, 64, 256),
        sweep_samples=2_500,
        sweep_learning_rate=3e-3,
        stream_samples=1_000,
        cost_elements=2**21,
        cost_repeats=40,
    )


def quick(seeds: int, workers: int) -> Settings:
    """A rehearsal of the same comparison in seconds; its figures are too rough to choose by."""
    return Settings(
        rehearsal=True,
        seeds=seeds,
        workers=workers,
        train_images=TRAIN_SIZE,
        test_images=TEST_SIZE,
        architectures=tuple(ARCHITECTURES),
        norms=NORMS,
        learning_rates=(1e-2,),
        batch_size=64,
        samples=1_000,
        sweep_architectures=("MLP",),
        sweep_batch_sizes=(2, 64),
        sweep_samples=500,
        sweep_learning_rate=3e-3,
        stream_samples=200,
        cost_elements=2**17,
        cost_repeats=5,
    )


def plan(settings: Settings) -> list[RunConfig]:
    """Every training run of the comparison, the longest first so that the processes end together."""
    configs = [*_architecture_runs(settings), *_sweep_runs(settings), *_streaming_runs(settings)]
    return sorted(configs, key=lambda config: -_work(config))


def compare(settings: Settings, progress: Progress) -> Comparison:
    """Measure everything. The timing of the norms comes first and has the machine to itself."""
    progress("probing the axes", 0, 1)
    axes = probe.probe_norms(settings.norms)
    progress("probing the axes", 1, 1)
    costs = cost.measure(
        settings.cost_elements, settings.cost_repeats, lambda done, of: progress("timing the norms", done, of)
    )
    machine = describe_machine()
    runs = _train_all(plan(settings), settings.workers, progress)
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Comparison(created, machine, settings, axes, costs, runs)


def describe_machine() -> Machine:
    """Name the machine and the versions in use."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        normkit=nk.__version__,
        backends="; ".join(
            f"{one.device}: {one.kernel}" + (f" ({one.why_not})" if one.why_not else "")
            for one in nk.backends().values()
        ),
    )


def _architecture_runs(settings: Settings) -> Iterator[RunConfig]:
    for architecture in settings.architectures:
        for norm in settings.norms:
            for rate in settings.learning_rates:
                for seed in range(settings.seeds):
                    yield RunConfig(
                        "architecture", architecture, norm, seed, rate, settings.batch_size, settings.samples
                    )


def _sweep_runs(settings: Settings) -> Iterator[RunConfig]:
    for architecture in settings.sweep_architectures:
        for norm in settings.norms:
            for size in settings.sweep_batch_sizes:
                for seed in range(settings.seeds):
                    rate = _scaled_rate(settings, size)
                    yield RunConfig(
                        "batch size", architecture, norm, seed, rate, size, settings.sweep_samples
                    )


def _streaming_runs(settings: Settings) -> Iterator[RunConfig]:
    for architecture in settings.sweep_architectures:
        for norm in settings.norms:
            for seed in range(settings.seeds):
                rate = _scaled_rate(settings, 1)
                yield RunConfig("streaming", architecture, norm, seed, rate, 1, settings.stream_samples)


def _scaled_rate(settings: Settings, batch_size: int) -> float:
    # Adam's steps do not grow with the gradient, so the noise of a batch calls for the square root.
    return settings.sweep_learning_rate * math.sqrt(batch_size / settings.batch_size)


# Milliseconds of a training step, and of each image in it, on one core: for planning only.
WORK = {"CNN": (0.9, 0.03), "MLP": (0.6, 0.005), "RNN": (1.7, 0.015), "Transformer": (1.8, 0.04)}


def _work(config: RunConfig) -> float:
    per_step, per_image = WORK[config.architecture]
    return config.samples * (per_step / config.batch_size + per_image)


def _train_all(configs: list[RunConfig], workers: int, progress: Progress) -> tuple[Run, ...]:
    # "spawn": a forked child would inherit PyTorch's thread pool without its threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    runs: list[Run] = []
    total = sum(map(_work, configs))
    done = 0.0
    try:
        with _interrupts_ignored():
            pending: set[Future[Run]] = {executor.submit(train, config) for config in configs}
        while pending:
            progress("training", round(done), round(total))
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                runs.append(future.result())
                done += _work(runs[-1].config)
    finally:
        executor.shutdown(wait=not pending, cancel_futures=True)
    progress("training", round(total), round(total))
    order = {config: position for position, config in enumerate(configs)}
    return tuple(sorted(runs, key=lambda run: order[run.config]))


def _start_worker() -> None:
    # Ctrl-C goes to all processes of the terminal: a worker ends at once, the main process reports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
    # Without the C++ core normkit says so once per process: the main one has done that.
    warnings.filterwarnings("ignore", message="normkit uses PyTorch's own operators")


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    # Workers inherit this and so start up deaf; a Ctrl-C that hit them half-way through their imports
    # would print a traceback for each.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
