"""Every default launch, compiled for a chip: ``python -m tests.kernels.triton_compiled sm_90``

Prints, as JSON, what was compiled and which of it spills registers.
"""

import contextlib
import io
import json
import re
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from normkit.kernels.pytorch import accumulation_dtype
from normkit.kernels.triton import (
    batch_norm_kernels,
    launch,
    row_norm,
    row_norm_kernels,
    wide_row_gradients,
    wide_row_kernels,
)
from normkit.kernels.triton.bound import ACCUMULATE

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
POINTERS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.float64: "*fp64"}
PLANES = [
    (32, 3136, True),
    (8, 49, True),
    (1, 1, True),
    (128, 512, False),
    (100_352, 64, False),
    (7, 3, False),
]
# On gfx942 wide ones only of multiples of 16: the others spill scalar registers, into vector registers.
WIDTHS = [
    1,
    16,
    64,
    256,
    1024,
    4096,
    8192,
    8200,
    16384,
    16_392,
    32768,
    65536,
    70_000,
    70_001,
    70_002,
    262_144,
]


def row_kernels(dtype, n, chip, centred):
    """(kernel, launch, constants) of a row norm forward and backward."""
    accumulated = accumulation_dtype(dtype)
    recipe = {"A": ACCUMULATE[accumulated], "CENTRED": centred, "OUTSIDE": not centred, "OFFSET": not centred}
    size = accumulated.itemsize
    how = launch.row_forward(n, size, chip, dtype.itemsize, centred)
    if how is None:
        k = wide_row_kernels
        yield from shared_rows((k.forward, k.measure, k.finish), "forward", dtype, n, chip, recipe)
    else:
        yield (
            row_norm_kernels.forward,
            how,
            {**recipe, **whole_rows(n, how), "AHEAD": launch.reads_ahead(how, centred, dtype.itemsize, chip)},
        )
    how = launch.row_backward(n, size, chip)
    if how is None:
        k = wide_row_gradients
        yield from shared_rows((k.backward, k.measure, k.finish), "backward", dtype, n, chip, recipe)
    else:
        yield (
            row_norm_kernels.backward,
            how,
            {**recipe, **whole_rows(n, how), "STAGES": launch.stages(how, dtype.itemsize, chip)},
        )


def whole_rows(n, how):
    """The constants of a program that has rows to itself."""
    return {"FULL": n == how.columns, "ROWS": how.rows, "COLUMNS": how.columns}


def shared_rows(kernels, which, dtype, n, chip, recipe):
    """Likewise, of rows that several programs share."""
    shared = launch.shared_rows(which, n, n, dtype.itemsize, recipe["CENTRED"], chip)
    numbers = {"forward": 6 if recipe["CENTRED"] else 3, "backward": 1 + recipe["CENTRED"]}[which]
    recipe = {**recipe, "NUMBERS": numbers, "PAIRS": launch.in_pairs(dtype.itemsize, n)}
    for kernel in row_norm._steps(shared, *kernels):
        options = row_norm._options(shared, n, kernel is kernels[0])
        constants = {name: options[name] for name in options if name in kernel.arg_names}
        needed = {name: recipe[name] for name in recipe if name in kernel.arg_names}
        yield kernel, launch.Launch(1, shared.columns, shared.warps), {**needed, **constants}


def channel_kernels(dtype, outer, inner, chip, planar):
    """(kernel, launch, constants) of a BatchNorm forward and backward."""
    accumulated = accumulation_dtype(dtype)
    how = launch.channels(outer, inner, planar, dtype.itemsize, chip)
    recipe = {"A": ACCUMULATE[accumulated], "PLANAR": planar, "ROWS": how.rows, "COLUMNS": how.columns}
    k = batch_norm_kernels
    for kernel in (k.moments, k.apply, k.infer, k.gradient_sums):
        yield kernel, how, recipe
    for training in (True, False):
        yield k.gradient, how, {**recipe, "TRAINING": training}


def per_channel_kernels(dtype, chip):
    """Likewise, of what is done once for a channel."""
    accumulate, k = ACCUMULATE[accumulation_dtype(dtype)], batch_norm_kernels
    how = launch.PER_CHANNEL
    yield k.given, how, {"A": accumulate, "COLUMNS": how.columns}
    for kernel, how in ((k.conclude, launch.MOMENTS), (row_norm_kernels.add_parts, launch.PARTS)):
        yield kernel, how, {"A": accumulate, "PARTS": how.rows, "COLUMNS": how.columns}


def every_kernel(dtype, chip):
    """(kernel, launch, constants, sizes that are 1, sizes that are multiples of 16)."""
    dense = {"n", "x_stride", "grad_stride"}
    for n in WIDTHS:
        if n % 16 and n > 1024 and chip.architecture == "gfx942":
            continue
        ones = {"rows", "n", "rows_each", "x_stride", "grad_stride"} if n == 1 else set()
        multiples = dense if n % 16 == 0 else set()
        for centred in (True, False):
            for found in row_kernels(dtype, n, chip, centred):
                yield *found, ones, multiples
    for outer, inner, planar in PLANES:
        ones = {name for name, size in (("outer", outer), ("inner", inner)) if size == 1}
        for found in channel_kernels(dtype, outer, inner, chip, planar):
            strides = {name for name in found[0].arg_names if name.endswith("stride")}
            yield *found, ones, strides if inner % 16 == 0 else set()
    for found in per_channel_kernels(dtype, chip):
        yield *found, set(), dense


def chip_for(target):
    """With as many processors as an H100, and without programs that wait for each other but on CUDA."""
    name = next(name for name, other in TARGETS.items() if other == target)
    return launch.Chip(target.warp_size, 132 if target.backend == "cuda" else 0, name)


def compiled(kernel, how, constants, dtype, target, ones, multiples):
    """The kernel for aligned tensors of this dtype, and what its assembler told.

    `ones` names sizes that are 1, `multiples` those that are multiples of 16: Triton compiles for these on
    their own.
    """
    wide = {
        "statistics",
        "gain_parts",
        "bias_parts",
        "origins",
        "means",
        "squares",
        "units",
        "sums",
        "products",
        "gain_total",
        "bias_total",
    }
    pointers = {"x", "y", "grad_y", "grad_x", "gain", "weight", "bias", "running_mean", "running_var", *wide}
    scalars = {"eps"} | {
        f"{name}_{half}" for name in ("eps", "offset", "inverse") for half in ("high", "low")
    }
    signature, fixed, aligned = {}, {}, {}
    for at, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], fixed[(at,)] = "constexpr", constants[name]
        elif name in ones:
            signature[name], fixed[(at,)] = "constexpr", 1
        elif name in scalars:
            signature[name] = "fp32"
        elif name == "words":
            signature[name] = "*i64" if accumulation_dtype(dtype) == torch.float64 else "*i32"
        elif name in pointers:
            signature[name] = POINTERS[accumulation_dtype(dtype) if name in wide else dtype]
        else:
            signature[name] = "i32"
        if signature[name].startswith("*") or name in multiples:
            aligned[(at,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, fixed, aligned)
    options = {"num_warps": how.warps, "enable_fp_fusion": True}  # as bound.py launches them
    registers = 0
    if "AHEAD" in constants:
        registers = launch.most_registers(how, chip_for(target))
    elif kernel is batch_norm_kernels.moments:
        registers = launch.moments_registers(constants["PLANAR"], dtype.itemsize, chip_for(target))
    elif kernel in (wide_row_kernels.forward, wide_row_gradients.backward):
        registers = launch.sharing_of(kernel.__name__, dtype.itemsize, constants["CENTRED"]).registers
    if registers:
        options["maxnreg"] = registers
    with contextlib.redirect_stdout(io.StringIO()) as told:
        return triton.compile(source, target=target, options=options), told


def resources(kernel, told):
    """(registers of a thread, bytes of it that did not fit)."""
    if "amdgcn" in kernel.asm:
        text = kernel.asm["amdgcn"]
        spilled = re.findall(r"\.(?:s|v)gpr_spill_count:\s+(\d+)", text)
        return int(re.search(r"\.vgpr_count:\s+(\d+)", text)[1]), 4 * sum(map(int, spilled))
    text = told.getvalue()
    spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", text)
    return int(re.search(r"Used (\d+) registers", text)[1]), sum(map(int, spilled))


def main():
    target = TARGETS[sys.argv[1]]
    chip = chip_for(target)
    triton.knobs.nvidia.dump_ptxas_log = triton.knobs.compilation.always_compile = True
    most, spills = 0, []
    seen = set()
    for dtype in POINTERS:
        for kernel, how, constants, *sizes in every_kernel(dtype, chip):
            same = (kernel.__name__, kernel.__module__, dtype, how, str(constants), *map(frozenset, sizes))
            if same in seen:  # rows of different widths can have launches alike
                continue
            seen.add(same)
            registers, spilled = resources(*compiled(kernel, how, constants, dtype, target, *sizes))
            most = max(most, registers)
            if spilled:
                spills.append(f"{kernel.__name__}, {dtype}, {how}, {constants}: {spilled} bytes spilled")
    print(json.dumps({"compiled": len(seen), "registers": most, "spills": spills}))


if __name__ == "__main__":
    main()
