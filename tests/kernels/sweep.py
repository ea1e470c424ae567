"""A compact sweep of every operator, dtype and layout: ``python -m tests.kernels.sweep``

Which kernels serve is decided when normkit is imported, so each choice needs a process. Prints, as
JSON, what served and what was wrong.
"""

import dataclasses
import functools
import itertools
import json
import struct
import sys
import warnings
from types import SimpleNamespace

if {"--without-core", "--triton"} & set(sys.argv):
    sys.modules["normkit.kernels.cpu._core"] = None
if "--without-core" in sys.argv:  # what was not compiled has no eager mode in C++ either
    sys.modules["normkit.ops._compiled"] = SimpleNamespace(load=lambda: None)

import numpy as np
import torch

import normkit as nk
from tests import tolerances
from tests.data import DTYPES, KINDS
from tests.operands import (
    AFFINE,
    channel_operands,
    channels_last,
    every_norm,
    operands,
    row_operands,
    running_statistics,
)
from tests.oracle import BatchNorm, Operands, RowNorm, assert_right, run

interpreted = set()


def counted(kernel):
    """The kernel, which tells that it was called."""

    def call(*arguments):
        interpreted.add(kernel.__name__)
        return kernel(*arguments)

    return call


def patching_once(patch):
    """What Triton's interpreter patches of its language for each call, for a module's first one only.

    It takes most of the interpreter's time, and here nothing runs without it.
    """
    kept = {}

    def patched(function):
        if function.__module__ not in kept:
            kept[function.__module__] = patch(function)
        return SimpleNamespace(restore=lambda: None)

    return patched


def of_elements(np_dtype):
    """A Triton type's NumPy dtype, which the interpreter looks up for each number: that of its elements."""
    return lambda of: np.dtype(np.uint64) if of.scalar.is_ptr() else np_dtype(of.scalar)


if "--triton" in sys.argv:  # in its interpreter, for CPU tensors
    from triton.runtime import interpreter

    from normkit import ops
    from normkit.kernels.triton import OPERATORS, launch, row_norm

    interpreter._patch_lang = patching_once(interpreter._patch_lang)
    interpreter._get_np_dtype = of_elements(functools.cache(interpreter._get_np_dtype))
    for name, operator in OPERATORS.items():
        OPERATORS[name] = counted(operator)
        torch.library.impl(f"normkit::{name}", "cpu", OPERATORS[name])
    # In inference without the dispatcher, as on a GPU.
    ops.row_norm.layer_norm_direct = ops.row_norm.layer_norm_at_once
    ops.row_norm.rms_norm_direct = ops.row_norm.rms_norm_at_once
    ops.batch_norm.batch_norm_direct = ops.batch_norm.batch_norm_at_once
    if "--in-slabs" in sys.argv:  # what a row of 17 is too wide for
        launch.FORWARD = launch.BACKWARD = launch.Budget("any", held=64, thread=64)
        # Four slabs or more of 1000 elements, and partial sums of several rows.
        launch.SHARING = {place: launch.Sharing(16, 1, 2, 128) for place in launch.SHARING}
        launch.SHARING_CENTRED = {("backward", size): launch.Sharing(16, 1, 1, 128) for size in (2, 4)}
        launch.PROCESSORS = 1

        # By turns a launch that finishes what another measured, and one whose programs wait for each other.
        # The interpreter runs these one after the other, so another has measured all before: none waits.
        launch.waiting_groups = lambda rows, slabs, programs: min(2, rows)
        ways = itertools.cycle(["finish", "wait"])

        def by_turns(shared, together, measure, finish):
            return (measure, finish if next(ways) == "finish" else together)

        row_norm._steps = by_turns
    if "--in-steps" in sys.argv:  # programs of one row or a few, which go through several in a backward pass
        launch.FORWARD = launch.BACKWARD = launch.Budget("any", held=64 << 10, thread=8)
        launch.MOST_WARPS, launch.CHANNEL_WARPS = 4, {True: 4, False: 4}
        launch.reads_ahead, row_norm.chip_of = lambda *_: True, lambda device: launch.Chip(processors=2)

DEVICE = "cuda" if "--cuda" in sys.argv else "cpu"
IN_SLABS = "--in-slabs" in sys.argv  # rows that registers do not hold; a BatchNorm has none, nor narrow ones
WIDTHS = [17, 33, 65, 255, 1000, 1024] if IN_SLABS else [1, 2, 3, 5, 8, 9, 16, 17, 33, 65, 255, 1000]
# In the interpreter a program takes milliseconds, and there is one for each channel's planes.
CHANNEL_WIDTHS = [1, 3, 9, 17] if "--triton" in sys.argv else WIDTHS
if "--in-steps" in sys.argv:
    WIDTHS, CHANNEL_WIDTHS = [9, 65], [9]
if DEVICE == "cuda":  # on both sides of where registers no longer hold a row, backward and forward
    WIDTHS = [1, 2, 9, 17, 255, 1000, 4096, 8192, 8193, 16384, 16400, 32768, 70001]
    CHANNEL_WIDTHS = [1, 9, 17, 1000]


def share_of(things):
    """All, or after --share as `i/n` every n-th: things that have kernels of their own."""
    if "--share" not in sys.argv:
        return things
    i, n = map(int, sys.argv[sys.argv.index("--share") + 1].split("/"))
    return things[i::n]


def kinds_for(width, dtype):
    """All, or in the interpreter every other one, by turns: a program takes milliseconds there."""
    if "--triton" not in sys.argv or "--in-steps" in sys.argv:
        return list(KINDS)
    return list(KINDS)[(WIDTHS.index(width) + DTYPES.index(dtype)) % 2 :: 2]


def cases(dtype):
    """(norm, operands) of everything a kernel has a branch for."""
    for width in share_of(WIDTHS):
        for kind in kinds_for(width, dtype):
            for name in ("layer_norm", "rms_norm"):
                yield RowNorm(name), row_operands(kind, width, dtype, affine=width % 2 == 1)
            for shape in ((2, 3, width), (5, width), (2, width, 3)) if width in CHANNEL_WIDTHS else ():
                o = channel_operands(kind, shape, dtype, affine=kind != "constant")
                for laid_out in (o, channels_last(o)):
                    yield BatchNorm(), laid_out
                    yield BatchNorm(running_statistics(o.x)), laid_out
    # Planes are summed by fours, and written as one run.
    for width in () if "--triton" in sys.argv else (15, 17, 49, 64, 333):
        o = channel_operands("normal", (7, 70, width), dtype)
        apart = torch.stack((o.grad_output, o.x), dim=2)[:, :, 0]  # its planes do not adjoin
        part = torch.cat((o.x, o.x), dim=1)[:, 35:105]
        for arranged in (o, o._replace(grad_output=apart), o._replace(x=part)):
            yield BatchNorm(), arranged
            yield BatchNorm(running_statistics(o.x)), arranged
    # Many rows meet the same channels' numbers.
    for width in () if "--triton" in sys.argv else (16, 17, 130, 2050):
        o = channel_operands("normal", (40, width), dtype)
        for norm in (BatchNorm(), BatchNorm(running_statistics(o.x))):
            yield norm, o
            yield norm, o._replace(grad_output=torch.cat((o.grad_output, o.x), 1)[:, :width])
    for norm in share_of(list(every_norm(19, dtype))):
        shape = (70, 19, 3) if isinstance(norm, BatchNorm) else (33 if IN_SLABS else 70, 19)
        for affine in AFFINE:
            yield norm, operands(norm, shape, dtype, affine=affine)
        for weight_dtype in DTYPES:
            yield norm, operands(norm, shape, dtype, weight_dtype)


def hard_cases():
    """(norm, operands) of rows that a shortcut would get wrong, as PyTorch's operators do."""
    outlier, g = torch.randn(16, 300), torch.randn(16, 300)
    outlier[:, 0] = 1e4
    signs = torch.randn(2, 1000).sign()
    tiny_eps = {"eps": 1e-21, "eps_mode": "outside"}
    yield RowNorm("layer_norm"), Operands(outlier, torch.randn(300), None, g)
    yield BatchNorm(), Operands(outlier.T.contiguous(), None, None, g.T.contiguous())
    for size in (1e-30, 1e19, 1e30, 1e37):
        x, upstream = size * torch.randn(1200, 3, 5), torch.randn(1200, 3, 5)
        norm = BatchNorm(options={"eps": 0.0} if size < 1 else {})
        yield norm, Operands(x, None, None, upstream)
        yield norm, channels_last(Operands(x[..., None], None, None, upstream[..., None]))
    for name in ("layer_norm", "rms_norm"):
        yield RowNorm(name), Operands(9e17 * signs, None, None, torch.randn(2, 1000))
    yield RowNorm("rms_norm", options=tiny_eps), Operands(1e-22 * outlier, None, None, g)
    for size in (1e-19, 1e-20, 1e-21):
        options = {"eps": 1e-6, "eps_mode": "outside"}
        yield RowNorm("rms_norm", options=options), Operands(size * outlier / 1e4, None, None, g)
    equal = torch.randn(16, 300)
    equal[:, :128] = torch.tensor([1e19, -1e19, 1e25, 1e-19]).repeat(4)[:, None]
    yield RowNorm("layer_norm"), Operands(equal, None, None, torch.randn(16, 300))
    part_zero = 1e-25 * torch.randn(2, 1000)
    part_zero[:, 256:512] = 0
    for name in ("layer_norm", "rms_norm"):
        yield (
            RowNorm(name, options={"eps": 0.0}),
            Operands(part_zero, None, None, 1e-25 * torch.randn(2, 1000)),
        )
    nearly = torch.full((2, 1000), 1.0001e-12)
    nearly[:, 0] = nearly[0, 0].nextafter(torch.tensor(1.0))
    yield RowNorm("layer_norm", options={"eps": 0.0}), Operands(nearly, None, None, torch.randn(2, 1000))
    # Rows of 16 bits that several programs share: eps outweighs one, one's mean is far away, some are scaled.
    wide = 4096 if IN_SLABS else 32768
    uneven = torch.randn(5, wide)
    uneven[0], uneven[1], uneven[1, 100] = 0.003, 1000, 1008
    uneven[2:] = torch.stack((1e30 * uneven[2], 2.0**55 * uneven[3], 1e34 * uneven[4].sign()))
    g = torch.randn(5, wide).bfloat16()
    yield RowNorm("layer_norm"), Operands(uneven.bfloat16(), None, None, g)
    tiny = (1e-30 * torch.randn(2, wide)).bfloat16()
    yield RowNorm("layer_norm", options={"eps": 0.0}), Operands(tiny, None, None, (1e-30 * g[:2]).bfloat16())
    if not IN_SLABS:  # that the interpreter would take minutes for
        levels = torch.tensor(
            [-1.8064520359039307, 0.439117968082428, 0.3006966710090637, 0.2508964240550995]
        )
        repeated = levels.repeat(2, 16384)
        yield RowNorm("layer_norm"), Operands(repeated, None, None, torch.randn(2, 65536))
    late = torch.randn(400, 3, 16)
    late[:300] = 0
    yield BatchNorm(options={"eps": 0.0}), Operands(late, None, None, torch.randn(400, 3, 16))


def infinity_at_the_start():
    """What an infinity makes of its row: itself not a number, the rest zeros."""
    y = nk.functional.rms_norm(torch.tensor([[torch.inf] + [1.0] * 63], device=DEVICE), (64,))
    if not (y[0, 0].isnan() and (y[0, 1:] == 0).all()):
        yield f"a row that starts with infinity gives {y[0, :3]}"


def empty_batches():
    """What is not as it has to be where there is nothing to normalize: shapes, and gradients of zero."""
    for shape in ((0, 3), (5, 0), (5, 3, 0), (0, 3, 4, 4), (2, 0, 4, 4), (0, 0)):
        norms = [(nk.functional.batch_norm, (None, None), shape[1:2], {"training": True})]
        norms += [
            (f, (shape[-1:],), shape[-1:], {}) for f in (nk.functional.layer_norm, nk.functional.rms_norm)
        ]
        for function, before, features, options in norms:
            x = torch.empty(shape, device=DEVICE, requires_grad=True)
            weight = torch.ones(features, device=DEVICE, requires_grad=True)
            y = function(x, *before, weight, **options)
            found = torch.autograd.grad(y, (x, weight), torch.ones_like(y))
            if y.shape != x.shape or found[0].shape != x.shape or not torch.equal(found[1], 0 * weight):
                yield f"{function.__name__} of {shape}: {y.shape}, {found}"


def nans_of_every_kind():
    """Results that a NaN missed, or hit that it should not: one of all ones overflows if it is rounded."""
    n = 70
    bits = torch.tensor([-1, 0x7FFFFFFF, -0x7FFFFF, 0x7F800001, 0x7FFF8000, -0x8000], dtype=torch.int32)
    bad = torch.arange(n) % 7 == 4
    for dtype, weight_dtype in itertools.product(
        (torch.bfloat16, torch.float16), (torch.float32, torch.float64)
    ):
        good = torch.rand(n, dtype=weight_dtype)
        strange = torch.where(bad, bits.view(torch.float32).repeat(n)[:n].to(weight_dtype), good)
        for place, shape in itertools.product(("weight", "bias", "mean", "var"), ((5, n), (5, n, 9))):
            weight, bias, mean, var = (
                strange if place == p else good for p in ("weight", "bias", "mean", "var")
            )
            o = Operands(torch.randn(shape).to(dtype), weight, bias, torch.randn(shape).to(dtype))
            yield from astray(BatchNorm((mean, var)), o, bad, bad & (place in ("weight", "var")))
            if place in ("weight", "bias") and shape == (5, n):  # a row's gradient is made of all its weights
                yield from astray(RowNorm("layer_norm"), o, bad, torch.tensor(place == "weight"))
    all_ones = struct.unpack("d", b"\xff" * 8)[0]
    plain = Operands(torch.ones(4, 9).bfloat16(), torch.ones(9), None, torch.ones(4, 9).bfloat16())
    offset = RowNorm("rms_norm", options={"gain_offset": all_ones})
    yield from astray(offset, plain, *2 * [torch.tensor(True)])
    of_halves = torch.tensor([-1, 0x7FFF, 0x7F81, -0x7F], dtype=torch.int16).view(torch.bfloat16)
    x = torch.randn(4, 300).bfloat16()
    x[:, 17] = of_halves
    for name in ("layer_norm", "rms_norm"):
        yield from astray(
            RowNorm(name), Operands(x, None, None, torch.randn(4, 300).bfloat16()), *2 * [torch.tensor(True)]
        )


def astray(norm, o, output, grad_input):
    """Where results are NaN and should not be, or the other way round, by channel."""
    found = run(there(norm), o)
    for name, t, expected in (("output", found.output, output), ("grad_input", found.grad_input, grad_input)):
        where = t.isnan().movedim(1, -1)
        if not torch.equal(where, expected.expand(where.shape)):
            yield f"{norm}, {o.x.dtype}, {tuple(o.x.shape)}: {name} is NaN at {where.nonzero()[:9].tolist()}"


def chosen_dtypes():
    """All that are swept, or the one that was named after --dtype."""
    if "--dtype" in sys.argv:
        return [getattr(torch, sys.argv[sys.argv.index("--dtype") + 1])]
    return [torch.float32, torch.bfloat16] if IN_SLABS else DTYPES


def failures(room):
    """One line for each case that is wrong."""
    for dtype in chosen_dtypes():
        for norm, o in cases(dtype):
            if not (IN_SLABS and isinstance(norm, BatchNorm)):
                yield from wrong(norm, o, room)
    torch.manual_seed(0)
    for norm, o in () if {"--without-core", "--in-steps"} & set(sys.argv) else share_of(list(hard_cases())):
        if not (IN_SLABS and isinstance(norm, BatchNorm)):
            # A GPU's kernels keep rstd in one number; twice the bound, as docs/numerics.md says.
            yield from wrong(norm, o, 2 if {"--triton", "--cuda"} & set(sys.argv) else room)


def there(norm):
    """The norm on the device, of tensors on the CPU and with a result there."""
    if DEVICE == "cpu":
        return norm.ours
    if isinstance(norm, BatchNorm) and norm.running is not None:
        norm = dataclasses.replace(norm, running=tuple(t.to(DEVICE) for t in norm.running))
    return lambda *tensors: norm.ours(*(t if t is None else t.to(DEVICE) for t in tensors)).to("cpu")


def wrong(norm, o, room):
    """What is wrong with one case."""
    ours = there(norm)
    results, what = run(ours, o), f"{o.x.dtype}, {tuple(o.x.shape)}"
    try:
        assert_right(norm, o, results, what, room)
    except AssertionError as error:
        yield str(error)
    with torch.no_grad():
        if not torch.equal(ours(o.x, o.weight, o.bias), results.output):
            yield f"{norm} {what}: inference gives other bits"


def running_statistics_of_three_steps():
    """What a BatchNorm has tracked, by momentum and by average, against PyTorch's."""
    for momentum in (0.3, None):
        ours, theirs = (m.BatchNorm1d(5, momentum=momentum, device=DEVICE) for m in (nk, torch.nn))
        for step in range(3):
            x = torch.linspace(-1, 1 + step, 150, device=DEVICE).reshape(10, 5, 3)
            ours(x)
            theirs(x)
        for name, t in theirs.state_dict().items():
            if not torch.allclose(ours.state_dict()[name], t, rtol=1e-6):
                yield f"momentum={momentum}: {name} is {ours.state_dict()[name]}, PyTorch has {t}"


def main():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        room = tolerances.FALLBACK if "--without-core" in sys.argv else 1
        found = [
            *failures(room),
            *empty_batches(),
            *infinity_at_the_start(),
            *(() if "--triton" in sys.argv else nans_of_every_kind()),  # a GPU rounds by itself
            *running_statistics_of_three_steps(),
        ]
    backend = nk.backends()[DEVICE]
    report = {
        "instruction_set": nk.kernels.cpu.instruction_set(),
        "kernel": backend.kernel,
        "why_not": backend.why_not,
        "warnings": [str(w.message) for w in caught],
        "failures": found,
        "interpreted": sorted(interpreted),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
