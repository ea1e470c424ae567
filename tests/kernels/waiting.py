"""Programs that wait for each other, each in a process of its own: ``python -m tests.kernels.waiting``

Triton's interpreter runs one program after the other. Here they run side by side, over memory that they
share, with pauses at random, and have to give the bits of launches that wait for nobody. Prints what differs,
as JSON.
"""

import itertools
import json
import os
import random
import signal
import time

import torch
from triton.runtime import interpreter

from normkit.kernels.triton import launch, row_norm

SECONDS = 5  # that programs may take, which wait for nothing but each other
one_by_one = interpreter.GridExecutor.__call__


def side_by_side(executor, *arguments, **constants):
    """What the interpreter does for a launch, by a process for each program."""
    for t in arguments:
        if isinstance(t, torch.Tensor):
            t.share_memory_()
    grid = (*executor.grid, 1, 1)[:3]
    running = {
        start(executor, place, grid, arguments, constants) for place in itertools.product(*map(range, grid))
    }
    until = time.monotonic() + SECONDS
    while running:
        for process in list(running):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                running.remove(process)
                assert status == 0, f"a program of {executor.fn.__name__} failed"
        if time.monotonic() > until:
            for process in running:
                os.kill(process, signal.SIGKILL)
            raise AssertionError(f"{len(running)} programs of {executor.fn.__name__} wait for ever")
        time.sleep(0.001)


def start(executor, place, grid, arguments, constants):
    """The process of one program."""
    process = os.fork()
    if process:
        return process
    try:
        builder = interpreter.interpreter_builder
        set_dim, set_idx, load = builder.set_grid_dim, builder.set_grid_idx, builder.create_masked_load
        chance = random.Random(str(place))

        def load_some_time(*operands):
            if chance.random() < 0.05:
                time.sleep(0.003 * chance.random())
            return load(*operands)

        builder.set_grid_dim = lambda *_: set_dim(*grid)
        builder.set_grid_idx = lambda *_: set_idx(*place)
        builder.create_masked_load = load_some_time
        executor.grid = (1,)
        one_by_one(executor, *arguments, **constants)
        os._exit(0)
    finally:
        os._exit(1)


def rows_of_every_kind(rows, n, dtype):
    """Rows of which some have to be measured again, with care."""
    x = torch.randn(rows, n)
    for row, kind in zip(range(rows), itertools.cycle(["normal", "outlier", "equal", "huge", "far", "nan"])):
        if kind == "outlier":
            x[row, 0] = 1e4
        elif kind == "equal":
            x[row] = 0.3
        elif kind == "huge":
            x[row] *= 1e30
        elif kind == "far":
            x[row, n // 2 :] += 1000
        elif kind == "nan":
            x[row, -1] = float("nan")
    return x.to(dtype)


def both_ways(x, g, weight, bias, centred, groups):
    """A pass and its gradients, by `groups` of programs that wait for each other, or by none that do."""
    row_norm.forget()
    launch.waiting_groups = lambda rows, slabs, programs: min(groups, rows)
    interpreter.GridExecutor.__call__ = side_by_side if groups else one_by_one
    eps = 1e-5
    y, statistics = row_norm.row_norm_fwd(x, weight, bias, eps, centred)
    return y, statistics, *row_norm.row_norm_bwd(g, x, statistics, weight, bias, eps, centred)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    launch.FORWARD = launch.BACKWARD = launch.Budget("any", held=64, thread=64)
    launch.SHARING_CENTRED, launch.PROCESSORS = {}, 1
    different = []
    cases = itertools.product((1, 2), (1, 7), ((torch.float32, 300), (torch.bfloat16, 304)), (True, False))
    for ahead, rows, (dtype, n), centred in cases:
        launch.SHARING = {place: launch.Sharing(16, 1, ahead, 128) for place in launch.SHARING}
        x, g = rows_of_every_kind(rows, n, dtype), torch.randn(rows, n).to(dtype)
        weight, bias = torch.randn(2, n).to(dtype)
        found = both_ways(x, g, weight, bias, centred, 2)
        wanted = both_ways(x, g, weight, bias, centred, 0)
        for what, ours, theirs in zip(("y", "statistics", "x", "weight", "bias"), found, wanted, strict=True):
            if not torch.equal(ours.nan_to_num(nan=12345.0), theirs.nan_to_num(nan=12345.0)):
                different.append(f"{what} of {rows} rows of {n} {dtype}, {ahead} ahead, centred: {centred}")
    print(json.dumps(different))


if __name__ == "__main__":
    main()
