"""A run made up of round figures, for tests of what is done with figures."""

import pytest

from normkit.bench.cases import Case
from normkit.bench.machine import Machine
from normkit.bench.results import Bench, Entry, Row, Settings
from normkit.bench.timing import Timing

PEERS = ("pytorch", "inductor", "onnxruntime", "jax")
MACHINE = Machine(
    device="cpu",
    gpu="",
    cpu="a <processor> & more",
    cores=2,
    threads=2,
    l2_bytes=2**20,
    system="Linux",
    python="3.11.7",
    normkit="0.1.0",
    torch="2.13.0+cpu",
    kernels="cpu: C++",
    libraries={"onnxruntime": "1.20"},
)


def timing(seconds):
    return Timing(seconds, seconds * 0.9, seconds * 1.2, samples=31, faults=0.0)


def make_row(case, ours=2e-3, theirs=4e-3, floor=1e-3, drifts=(0.01,), **others):
    """A case normkit takes `ours` seconds for (None: wrong), PyTorch `theirs` and a copy `floor`."""
    wrong = Entry(error=7.0)
    contenders = {
        "normkit": wrong if ours is None else Entry(timing(ours), timing(5 * ours), 0.1),
        "pytorch": Entry(timing(theirs), timing(5 * theirs), 0.5),
        "inductor": wrong,
        "onnxruntime": Entry(unavailable="inference only"),
        "jax": Entry(unavailable="jax is not installed"),
        **others,
    }
    ways = {} if floor is None else {"memcpy": timing(2 * floor), "SIMD": timing(floor)}
    return Row(case, 1, 1, {"copy": ways}, contenders, tuple(drifts), steady=min(drifts) <= 0.05)


ROWS = (
    make_row(Case("rms_norm", (512, 4096), "forward")),
    make_row(Case("layer_norm", (512, 4096), "forward"), ours=1e-3, theirs=0.9e-3, floor=0.9e-3),
    make_row(Case("layer_norm", (1, 64), "forward"), ours=2e-6, theirs=4e-6, floor=1e-6),
    make_row(Case("rms_norm", (512, 4096), "forward", "bfloat16"), drifts=(0.3, 0.12, 0.2)),
    make_row(Case("rms_norm", (512, 4096), "backward"), floor=None),
    make_row(Case("batch_norm_training", (8, 4, 5, 5), "forward+backward", "bfloat16", True), ours=None),
)


def make_bench(rows=ROWS, complete=True):
    return Bench("2026-01-01T00:00:00+00:00", complete, MACHINE, Settings(31, PEERS), tuple(rows))


@pytest.fixture
def bench():
    return make_bench()
