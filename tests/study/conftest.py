"""A small comparison with made-up numbers, so that rules and rendering are tested without measuring."""

import pytest

from normkit.study.results import Axes, Checkpoint, Comparison, Cost, Machine, Run, RunConfig, Settings

NORMS = ("none", "batch", "layer", "rms")


def make_run(experiment, architecture, norm, seed, *, rate=0.01, batch_size=64, **figures):
    config = RunConfig(experiment, architecture, norm, seed, rate, batch_size, 1000)
    if "error" in figures:
        return Run(config, error=figures["error"])
    wobble = (seed - 1) * 0.002
    defaults = {
        "train_accuracy": 1.0,
        "train_loss": 0.01,
        "validation_accuracy": 0.95,
        "test_accuracy": 0.95 + wobble,
        "test_loss": 0.15,
        "batch_mode_accuracy": 0.95 + wobble,
        "batch_mode_shift": 0.0,
        "curve": (Checkpoint(500, 1.0, 0.5), Checkpoint(1000, 0.1, 0.95 + wobble)),
    }
    return Run(config, **{**defaults, **figures})


def make_cost(norm, implementation, backward, ratio, *, shape=(32, 4096), wrong=False):
    elements = shape[0] * shape[1]
    copies = (0.001, 0.0011, 0.0009, 0.001)
    return Cost(
        norm=norm,
        implementation=implementation,
        shape=shape,
        backward=backward,
        moved_bytes=(20 if backward else 8) * elements,
        copy_bytes=8 * elements,
        max_error=5.0 if wrong else 0.1,
        seconds=() if wrong else tuple(ratio * copy for copy in copies),
        copy_seconds=() if wrong else copies,
    )


def make_settings(**changes):
    values = {
        "rehearsal": False,
        "seeds": 3,
        "workers": 2,
        "train_images": 1000,
        "test_images": 500,
        "architectures": ("CNN", "MLP"),
        "norms": NORMS,
        "learning_rates": (0.001, 0.01),
        "batch_size": 64,
        "samples": 1000,
        "sweep_architectures": ("MLP",),
        "sweep_batch_sizes": (2, 64),
        "sweep_samples": 1000,
        "sweep_learning_rate": 0.003,
        "stream_samples": 500,
        "cost_elements": 131072,
        "cost_repeats": 4,
    }
    return Settings(**{**values, **changes})


def make_comparison(seeds=3):
    """BatchNorm: best in the CNN, falls at batch 2, refuses one image; the others: no difference at all."""
    runs = []
    for seed in range(seeds):
        wobble = (seed - 1) * 0.002
        for norm in NORMS:
            for rate, validation in ((0.001, 0.6), (0.01, 0.95)):
                better = {"test_accuracy": 0.99 + wobble} if norm == "batch" else {}
                shift = {"batch_mode_shift": 0.2} if norm == "batch" else {}
                figures = {"rate": rate, "validation_accuracy": validation, **shift}
                runs.append(make_run("architecture", "CNN", norm, seed, **figures, **better))
                runs.append(make_run("architecture", "MLP", norm, seed, **figures))
            for size in (2, 64):
                low = {"test_accuracy": 0.6 + wobble} if norm == "batch" and size == 2 else {}
                runs.append(make_run("batch size", "MLP", norm, seed, batch_size=size, **low))
            refusal = {"error": "one value per channel"} if norm == "batch" else {}
            runs.append(make_run("streaming", "MLP", norm, seed, batch_size=1, **refusal))
    ratios = {"batch": 9.0, "layer": 4.0, "rms": 4.02}
    costs = [
        make_cost(norm, implementation, backward, ratio * (1 if backward else 0.4), shape=shape)
        for norm, ratio in ratios.items()
        for shape in ((16, 64), (32, 4096))
        for implementation in ("normkit", "torch")
        for backward in (False, True)
    ]
    sequence = ("batch", "time", "feature"), (4, 3, 6), ("feature",), (), ("batch", "time")
    image = ("batch", "channel", "height", "width"), (4, 6, 3, 5)
    axes = (
        Axes("batch", True, *image, ("batch", "height", "width"), (), ("channel",), True, True),
        Axes("batch", False, *image, (), (), image[0], False, False),
        Axes("layer", True, *sequence, True, True),
        Axes("layer", False, *sequence, True, True),
        Axes("rms", True, *sequence, False, True),
        Axes("rms", False, *sequence, False, True),
    )
    machine = Machine("a <processor> & more", 2, 2, "Linux x86_64", "3.11", "2.13.0", "0.1.0", "cpu: core")
    created = "2026-01-01T00:00:00+00:00"
    return Comparison(created, machine, make_settings(seeds=seeds), axes, tuple(costs), tuple(runs))


@pytest.fixture(scope="session")
def comparison():
    return make_comparison()
