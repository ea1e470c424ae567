"""Each instruction set's kernels, chosen by NORMKIT_CPU when the library is loaded, give right results."""

import platform
from pathlib import Path

import pytest

import normkit as nk
from normkit.kernels import cpu
from tests.process import python, sweep

AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
NEEDS = {
    "avx512bf16": AVX512 | {"avx512_bf16"},
    "avx512": AVX512,
    "avx2": {"avx2", "fma", "f16c"},
    "portable": set(),
}


def has(instruction_set):
    """Whether this CPU has it, by what Linux says of it."""
    needed = NEEDS[instruction_set]
    if not needed:
        return True
    info = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not info.exists():
        return False
    flags = next(line for line in info.read_text().splitlines() if line.startswith("flags"))
    return needed <= set(flags.split())


needs_core = pytest.mark.skipif(cpu.why_not is not None, reason=f"no C++ core: {cpu.why_not}")


@needs_core
@pytest.mark.parametrize("cache", [{}, {"NORMKIT_CACHE_BYTES": "0"}], ids=["as large as it is", "none"])
@pytest.mark.parametrize("instruction_set", NEEDS)
def test_results(instruction_set, cache):
    if not has(instruction_set):
        pytest.skip(f"this CPU has no {instruction_set}")
    report = sweep(NORMKIT_CPU=instruction_set, **cache)
    assert report["instruction_set"] == instruction_set
    assert report["warnings"] == []
    assert report["failures"] == []


# A digest of every result: of row norms, in rows of whole lines, of other lengths, and few of them; with rows
# among them that are taken with care; and of BatchNorm, channels last, with given statistics and without.
BITS = """
import hashlib, torch
import normkit.functional as F
from tests.data import DTYPES
from tests.operands import every_norm, operands
from tests.oracle import run

bits = hashlib.sha256()
def add(*results):
    for result in results:
        bits.update(b"" if result is None else result.detach().contiguous().view(torch.uint8).numpy())

torch.manual_seed(0)
for dtype in DTYPES:
    for norm in every_norm(1, dtype)[:3]:
        for shape in ((40, 1024), (40, 1000), (33, 333), (3, 1000)):
            for weight_dtype in (dtype, torch.float32):
                for result in run(norm.ours, operands(norm, shape, dtype, weight_dtype)):
                    add(result)
    for shape in ((150, 64), (150, 1024), (101, 2100)):
        x, upstream = torch.randn(2, *shape).to(dtype)
        mean, variance, weight, bias = (torch.rand(4, shape[1]) + 0.5).to(dtype)
        leaves = [t.requires_grad_() for t in (x, weight, bias)]
        for training in (False, True):
            y = F.batch_norm(x, mean.clone(), variance.clone(), weight, bias, training)
            add(y, *torch.autograd.grad(y, leaves, upstream))
        x = x.detach()
        x[::6] *= 2.0 ** {torch.float64: 600, torch.float16: 0}.get(dtype, 100)
        for norm, *inputs in ((F.layer_norm, x, weight, bias), (F.rms_norm, x, weight)):
            x.requires_grad_()
            y = norm(x, shape[1:], *inputs[1:])
            add(y, *torch.autograd.grad(y, inputs, upstream))
print(bits.hexdigest())
"""


@needs_core
@pytest.mark.parametrize("instruction_set", NEEDS)
def test_the_way_past_the_cache_gives_the_same_bits(instruction_set):
    if not has(instruction_set):
        pytest.skip(f"this CPU has no {instruction_set}")
    digests = {
        python("-c", BITS, NORMKIT_CPU=instruction_set, NORMKIT_CACHE_BYTES=bound).stdout
        for bound in ("0", "unset")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


@needs_core
@pytest.mark.parametrize("instruction_set", NEEDS)
def test_the_whole_range(instruction_set):
    if not has(instruction_set):
        pytest.skip(f"this CPU has no {instruction_set}")
    table = python("-m", "tests.numerics", "--groups", "1200", NORMKIT_CPU=instruction_set).stdout
    assert len(table.splitlines()) > 20  # it ends with an error where a result is wrong


@needs_core
def test_the_best_is_chosen_and_never_more_than_the_cpu_has():
    best = next(name for name in NEEDS if has(name))
    code = "from normkit.kernels import cpu; print(cpu.instruction_set())"
    assert python("-c", code, NORMKIT_CPU="avx1024").stdout.strip() == best
    if not has("avx512"):
        assert python("-c", code, NORMKIT_CPU="avx512").stdout.strip() == best


@needs_core
def test_backends_name_it():
    backend = nk.backends()["cpu"]
    assert backend.why_not is None
    assert cpu.instruction_set() in backend.kernel
    assert str(backend) == f"cpu: {backend.kernel}"
