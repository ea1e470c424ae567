"""The same bits for any number of threads, and for a row in any batch."""

import pytest
import torch

import normkit as nk
from tests.data import DTYPES, name_of
from tests.operands import channels_last, every_norm, operands
from tests.oracle import BatchNorm, RowNorm, run

EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_same_bits(a, b):
    for ours, theirs in zip(a, b, strict=True):
        assert torch.equal(ours, theirs)


THREADS = (1, 2, 3, 4, 8)

# Large enough to be shared out (more than 65536 elements), by rows, channels, pieces and planes.
ROWS = [(5000, 17), (33, 2000), (3, 40000), (1, 70000), (190, 40, 9)]
CHANNELS = [
    (3, 1, 40000),
    (2, 2, 30000),
    (4, 3, 100, 100),
    (17, 64, 7, 9),
    (14000, 5),
    (600, 130),
    (50, 3, 50, 9),
    # More pages than a core remembers; and so many samples that no group stays in any cache.
    (300, 26, 17, 17),
    (8000, 32, 3, 3),
]


@EVERY_DTYPE
@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_threads_of_row_norms(which, shape, dtype, threads):
    norm = every_norm(1, dtype)[which]
    o = operands(norm, shape, dtype)
    found = []
    for count in THREADS:
        threads(count)
        found.append([*run(norm.ours, o), norm.ours(*o[:3])])
    for other in found[1:]:
        assert_same_bits(found[0], other)


@EVERY_DTYPE
@pytest.mark.parametrize("shape", CHANNELS, ids=str)
@pytest.mark.parametrize("layout", ["planar", "channels-last"])
def test_threads_of_batch_norm(layout, shape, dtype, threads):
    found = []
    for count in THREADS:
        threads(count)
        seen = []
        for norm in every_norm(shape[1], dtype)[3:]:
            o = operands(norm, shape, dtype)
            o = channels_last(o) if layout == "channels-last" else o
            running = [torch.zeros(shape[1]), torch.ones(shape[1])]
            nk.functional.batch_norm(o.x, *running, training=True)
            assert running[0].any()
            seen += [*run(norm.ours, o), norm.ours(*o[:3]), *running]
        found.append(seen)
    for other in found[1:]:
        assert_same_bits(found[0], other)


@EVERY_DTYPE
@pytest.mark.parametrize("width", [1, 7, 33, 1000, 5000])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_row_does_not_depend_on_its_batch(which, width, dtype):
    norm = every_norm(1, dtype)[which]
    o = operands(norm, (70, width), dtype)
    together = run(norm.ours, o)
    for rows in (slice(3, 4), slice(3, 8), slice(0, 65), slice(69, None, None), slice(1, None, 2)):
        part = o._replace(x=o.x[rows], grad_output=o.grad_output[rows])
        alone = run(norm.ours, part)
        assert torch.equal(alone.output, together.output[rows])
        assert torch.equal(alone.grad_input, together.grad_input[rows])
        assert torch.equal(norm.ours(part.x, *o[1:3]), together.output[rows])


@EVERY_DTYPE
def test_inference_of_a_sample_does_not_depend_on_its_batch(dtype):
    norm = every_norm(5, dtype)[4]
    for o in (operands(norm, (9, 5, 37), dtype), channels_last(operands(norm, (9, 5, 37), dtype))):
        together = run(norm.ours, o)
        alone = run(norm.ours, o._replace(x=o.x[4:5], grad_output=o.grad_output[4:5]))
        assert torch.equal(alone.output, together.output[4:5])
        assert torch.equal(alone.grad_input, together.grad_input[4:5])


@EVERY_DTYPE
def test_what_is_not_wanted_does_not_change_what_is(dtype):
    for norm in every_norm(19, dtype):
        o = operands(norm, (40, 19), dtype)
        full = run(norm.ours, o)
        x = o.x.requires_grad_()
        (grad,) = torch.autograd.grad(norm.ours(x, *o[1:3]), x, o.grad_output)
        assert torch.equal(grad, full.grad_input)
        weight = o.weight.clone().requires_grad_()
        (grad,) = torch.autograd.grad(norm.ours(o.x.detach(), weight, o.bias), weight, o.grad_output)
        assert torch.equal(grad, full.grad_weight)
        bias = o.bias.clone().requires_grad_()
        (grad,) = torch.autograd.grad(norm.ours(o.x.detach(), o.weight, bias), bias, o.grad_output)
        assert torch.equal(grad, full.grad_bias)


def test_twice_is_the_same():
    norm = RowNorm("layer_norm")
    o = operands(norm, (300, 500), torch.float32)
    assert_same_bits(run(norm.ours, o), run(norm.ours, o))
    o = operands(BatchNorm(), (300, 50), torch.float32)
    assert_same_bits(run(BatchNorm().ours, o), run(BatchNorm().ours, o))
