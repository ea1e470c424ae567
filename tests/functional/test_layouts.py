"""Memory layouts: misaligned, strided, expanded, transposed; what is written and what is not."""

import pytest
import torch

import normkit as nk
from tests.data import DTYPES, name_of, normal
from tests.operands import channels_last, every_norm, operands
from tests.oracle import BatchNorm, Operands, assert_right, run

EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
EVERY_NORM = pytest.mark.parametrize("which", range(5))


def shape_for(norm):
    return (6, 19, 8) if isinstance(norm, BatchNorm) else (6, 8, 19)


def misaligned(t, offset):
    """The same values, `offset` elements into a storage that is nan all around."""
    storage = torch.full((t.numel() + 2 * offset + 16,), torch.nan, dtype=t.dtype)
    view = storage[offset : offset + t.numel()].view(t.shape)
    view.copy_(t)
    return view


@EVERY_DTYPE
@EVERY_NORM
@pytest.mark.parametrize("offset", range(1, 16))
def test_misaligned(offset, which, dtype):
    norm = every_norm(19, dtype)[which]
    o = operands(norm, shape_for(norm), dtype)
    away = Operands(*(misaligned(t, offset) for t in o))
    for results in (run(norm.ours, away), run(norm.ours, away._replace(x=o.x))):
        for ours, aligned in zip(results, run(norm.ours, o), strict=True):
            assert torch.equal(ours, aligned)
    assert_right(norm, away, run(norm.ours, away))


VIEWS = {
    "every second, innermost": lambda t: torch.repeat_interleave(t, 2, -1)[..., ::2],
    "every second, middle": lambda t: torch.repeat_interleave(t, 2, 1)[:, ::2],
    "every third, outermost": lambda t: torch.repeat_interleave(t, 3, 0)[::3],
    "the first k, innermost": lambda t: torch.cat([t, t * torch.nan], -1)[..., : t.shape[-1]],
    "the last k, middle": lambda t: torch.cat([t * torch.nan, t], 1)[:, t.shape[1] :],
    "transposed, outer": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "transposed, inner": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "transposed, ends": lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
    "all reversed": lambda t: t.permute(2, 1, 0).contiguous().permute(2, 1, 0),
    "channels-last, padded": lambda t: (
        torch.cat([t, t * torch.nan], 1).movedim(1, -1).contiguous().movedim(-1, 1)[:, : t.shape[1]]
    ),
}


@EVERY_DTYPE
@EVERY_NORM
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("of", ["input", "grad_output", "both"])
def test_views(of, view, which, dtype):
    norm = every_norm(19, dtype)[which]
    o = operands(norm, shape_for(norm), dtype)
    x, grad = VIEWS[view](o.x), VIEWS[view](o.grad_output)
    assert torch.equal(x, o.x)
    assert x.stride() != o.x.stride()
    o = o._replace(x=x if of != "grad_output" else o.x, grad_output=grad if of != "input" else o.grad_output)
    assert_right(norm, o, run(norm.ours, o))


@EVERY_DTYPE
@EVERY_NORM
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_expanded(dim, which, dtype):
    norm = every_norm(19, dtype)[which]
    o = operands(norm, shape_for(norm), dtype)
    x = o.x.narrow(dim, 0, 1).expand(o.x.shape)
    grad = o.grad_output.narrow(dim, 0, 1).expand(o.x.shape)
    assert 0 in x.stride()
    for case in (o._replace(x=x), o._replace(grad_output=grad), o._replace(x=x, grad_output=grad)):
        assert_right(norm, case, run(norm.ours, case))
    everywhere = o._replace(grad_output=torch.tensor(0.5, dtype=dtype).expand(o.x.shape))
    assert_right(norm, everywhere, run(norm.ours, everywhere))


@EVERY_DTYPE
@EVERY_NORM
def test_parameters_with_strides(which, dtype):
    norm = every_norm(19, dtype)[which]
    o = operands(norm, shape_for(norm), dtype)
    spread = [torch.repeat_interleave(t, 3)[::3] for t in (o.weight, o.bias)]
    plain = torch.tensor(1.25, dtype=dtype).expand(19)
    for weight, bias in (spread, (plain, o.bias), (o.weight, plain)):
        case = o._replace(weight=weight, bias=bias)
        assert_right(norm, case, run(norm.ours, case))


def test_running_statistics_with_strides():
    x = normal((6, 5, 4))
    dense = [torch.zeros(5), torch.ones(5)]
    storage = torch.full((2, 15), torch.nan)
    spread = [storage[0, ::3].zero_(), storage[1, ::3].fill_(1)]
    for training in (True, True, False):
        a, b = (nk.functional.batch_norm(x, *running, training=training) for running in (dense, spread))
        assert torch.equal(a, b)
    for a, b in zip(dense, spread, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, torch.zeros(5))
    assert storage.isnan().sum() == 20  # the elements between were left alone


@pytest.mark.parametrize("channels", [1, 2, 5, 16, 19, 70])
@EVERY_DTYPE
def test_running_statistics_stay_within_their_memory(channels, dtype):
    storage = torch.full((2, channels + 2), -7.0, dtype=dtype)
    running = [storage[i, 1:-1] for i in (0, 1)]
    nk.functional.batch_norm(normal((9, channels), dtype), *running, training=True, momentum=0.5)
    assert (storage[:, [0, -1]] == -7).all()
    assert (storage[:, 1:-1] != -7).all()


@EVERY_NORM
@EVERY_DTYPE
def test_inputs_are_not_changed_and_outputs_are_their_own(which, dtype):
    norm = every_norm(19, dtype)[which]
    for o in (operands(norm, shape_for(norm), dtype), channels_last(operands(norm, shape_for(norm), dtype))):
        given = [*o, *(getattr(norm, "running", None) or ())]
        before = [t.clone() for t in given]
        results = run(norm.ours, o)
        for t, was in zip(given, before, strict=True):
            assert torch.equal(t, was)
        pointers = [t.untyped_storage().data_ptr() for t in (*given, *results)]
        assert len(set(pointers)) == len(pointers)
        with torch.no_grad():
            y = norm.ours(*o[:3])
        assert torch.equal(y, results.output)
        assert y.untyped_storage().data_ptr() not in pointers


@pytest.mark.parametrize("which", [3, 4])
def test_a_transposed_sequence_comes_out_contiguous(which):
    """As from PyTorch, whose users go on with `view`."""
    norm = every_norm(5, torch.float32)[which]
    last = channels_last(operands(norm, (2, 5, 7), torch.float32))
    results = run(norm.ours, last)
    assert results.output.is_contiguous()
    assert results.grad_input.is_contiguous()
    assert norm.ours(last.x).is_contiguous()


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (2, 5, 3, 4, 2)], ids=str)
@pytest.mark.parametrize("which", [3, 4])
def test_channels_last_stays_channels_last(which, shape):
    norm = every_norm(5, torch.float32)[which]
    plain = operands(norm, shape, torch.float32)
    last = channels_last(plain)
    for o in (last, last._replace(grad_output=plain.grad_output)):
        results = run(norm.ours, o)
        assert results.output.stride() == results.grad_input.stride() == last.x.stride()
        assert norm.ours(o.x).stride() == last.x.stride()
    results = run(norm.ours, plain._replace(grad_output=last.grad_output))
    assert results.output.is_contiguous()
    assert results.grad_input.is_contiguous()
    if len(shape) == 4:
        assert norm.ours(last.x).is_contiguous(memory_format=torch.channels_last)
