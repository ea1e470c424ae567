"""Several Python threads at once: each gets the bits it gets alone; none waits for another's kernel."""

import sys
import threading
import time

import pytest
import torch

import normkit as nk
from tests.data import DTYPES, normal
from tests.operands import channels_last, every_norm, operands
from tests.oracle import BatchNorm, run

THREADS = 6
ROUNDS = 4
# Small ones, ones whose rows or channels are shared out, and one whose sums are cut into pieces.
SHAPES = [(3, 5), (40, 19), (70, 64, 3), (9, 33, 8, 8), (300, 1000), (2, 3, 40000), (600, 130)]


def work(thread):
    """(norm, operands) of a thread: every norm and dtype, each thread with another shape of it."""
    for i, dtype in enumerate(DTYPES):
        for which in range(5):
            shape = SHAPES[(thread + i + which) % len(SHAPES)]
            norm = every_norm(shape[1], dtype)[which]
            o = operands(norm, shape, dtype)
            turned = isinstance(norm, BatchNorm) and (thread + i) % 2
            yield norm, channels_last(o) if turned else o


def trained(thread):
    """What a BatchNorm module of the thread's own has learnt in a few steps."""
    layer = nk.BatchNorm1d(19 + thread)
    for step in range(5):
        shape = (8 + step, 19 + thread, 6)
        layer(normal(shape, seed=thread)).backward(normal(shape, seed=(thread, "grad")))
    return [*layer.state_dict().values(), layer.weight.grad, layer.bias.grad]


def results(cases, thread):
    found = [r for norm, o in cases for r in run(norm.ours, o)]
    return found + trained(thread)


def in_threads(function):
    """function(i) for every thread, all of them let go at once."""
    found, barrier = [None] * THREADS, threading.Barrier(THREADS)

    def call(i):
        barrier.wait()
        found[i] = function(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_every_thread_gets_what_it_would_get_alone():
    cases = [list(work(i)) for i in range(THREADS)]
    alone = [results(cases[i], i) for i in range(THREADS)]
    for _ in range(ROUNDS):
        together = in_threads(lambda i: results(cases[i], i))
        for ours, expected in zip(together, alone, strict=True):
            assert ours is not None, "a thread ended with an error"
            assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.fixture
def progress():
    """Whether another Python thread gets on while `call` runs: it can only where the GIL is released."""
    stop, steps = threading.Event(), [0]

    def count():
        while not stop.is_set():
            steps[0] += 1
            time.sleep(0)  # lets go of the GIL

    def during(call):
        # The GIL is never taken from a thread that does not let go of it by itself; and a thread that
        # could get on may still have to wait for a processor.
        for _ in range(200):
            before = steps[0]
            call()
            if steps[0] > before:
                return True
        return False

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    thread = threading.Thread(target=count)
    thread.start()
    yield during
    stop.set()
    sys.setswitchinterval(usual)
    thread.join()


OPERATORS = ["layer_norm", "row_norm_bwd", "batch_norm", "batch_norm_train", "batch_norm_bwd"]


def operators():
    """Every kernel alone, by name: the operators themselves, with nothing of Python around them."""
    ops = torch.ops.normkit
    x, channel = normal((2000, 500)), torch.ones(500)
    _, rows = ops.row_norm_fwd(x, None, None, 1e-5, True)
    _, batch = ops.batch_norm_train(x, None, None, 1e-5)
    return {
        "layer_norm": lambda: ops.layer_norm(x, None, None, 1e-5),
        "row_norm_bwd": lambda: ops.row_norm_bwd(x, x, rows, None, None, 1e-5, True),
        "batch_norm": lambda: ops.batch_norm(x, channel, channel, None, None, 1e-5),
        "batch_norm_train": lambda: ops.batch_norm_train(x, None, None, 1e-5),
        "batch_norm_bwd": lambda: ops.batch_norm_bwd(x, x, batch, None, None, 1e-5, True),
    }


@pytest.mark.parametrize(
    "name", ["layer_norm", "row_norm_bwd", "batch_norm", "batch_norm_train", "batch_norm_bwd"]
)
def test_the_gil_is_released(name, progress):
    assert progress(operators()[name])


def test_a_call_that_keeps_the_gil_is_seen(progress):
    much = bytes(1 << 20)
    assert not progress(lambda: much.count(b"1"))
