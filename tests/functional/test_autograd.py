"""Gradients: against finite differences; recorded where wanted and nowhere else."""

import pytest
import torch

from tests.data import normal
from tests.operands import AFFINE, every_norm
from tests.oracle import BatchNorm, RowNorm

F64 = torch.float64


def shape_for(norm, n=5):
    return (3, n, 2) if isinstance(norm, BatchNorm) else (3, 2, n)


def leaves(norm, affine, requires_grad=True, dtype=F64):
    x = normal(shape_for(norm), dtype)
    weight, bias = normal((5,), dtype, "weight"), normal((5,), dtype, "bias")
    tensors = (x, weight if affine[0] else None, bias if affine[1] else None)
    return [None if t is None else t.requires_grad_(requires_grad) for t in tensors]


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("memory", ["contiguous", "channels-last"])
def test_gradcheck(memory, which, affine):
    norm = every_norm(5, F64)[which]
    inputs = leaves(norm, affine)
    if memory == "channels-last":
        inputs[0] = inputs[0].detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    given = [t for t in inputs if t is not None]

    def call(*tensors):
        found = iter(tensors)
        return norm.ours(*(None if t is None else next(found) for t in inputs))

    assert torch.autograd.gradcheck(call, given, nondet_tol=0.0)


@pytest.mark.parametrize(
    "options",
    [{"eps_mode": m, "gain_offset": g, "eps": 0.2} for m in ("inside", "outside") for g in (0.0, 1.0)],
)
@pytest.mark.parametrize("trailing", [1, 2])
def test_gradcheck_of_rms_norm_variants(trailing, options):
    norm = RowNorm("rms_norm", trailing, options)
    x = normal((3, 2, 4), F64)
    parameters = (normal(norm.shape(x), F64, seed) for seed in ("weight", "bias"))
    inputs = [t.requires_grad_() for t in (x, *parameters)]
    assert torch.autograd.gradcheck(norm.ours, inputs, nondet_tol=0.0)


@pytest.mark.parametrize("which", range(5))
def test_no_node_where_no_gradient_is_wanted(which):
    norm = every_norm(5, torch.float32)[which]
    wanting = leaves(norm, (True, True), dtype=torch.float32)
    with torch.no_grad():
        assert norm.ours(*wanting).grad_fn is None
    with torch.inference_mode():
        y = norm.ours(*wanting)
        assert y.grad_fn is None
        assert y.is_inference()
    y = norm.ours(*leaves(norm, (True, True), requires_grad=False, dtype=torch.float32))
    assert y.grad_fn is None
    assert not y.requires_grad
    assert norm.ours(*wanting).grad_fn is not None


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize(
    "wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)], ids=str
)
def test_subsets_of_gradients(wanted, which):
    norm = every_norm(5, F64)[which]
    grad = normal(shape_for(norm), F64, "grad")
    full = leaves(norm, (True, True))
    expected = torch.autograd.grad(norm.ours(*full), full, grad)
    some = leaves(norm, (True, True), requires_grad=False)
    for t, want in zip(some, wanted, strict=True):
        t.requires_grad_(bool(want))
    norm.ours(*some).backward(grad)
    for t, want, right in zip(some, wanted, expected, strict=True):
        assert (t.grad is not None) == bool(want)
        if want:
            torch.testing.assert_close(t.grad, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("which", range(5))
def test_gradients_accumulate_and_graphs_can_be_kept(which):
    norm = every_norm(5, F64)[which]
    inputs = leaves(norm, (True, True))
    grad = normal(shape_for(norm), F64, "grad")
    y = norm.ours(*inputs)
    y.backward(grad, retain_graph=True)
    once = [t.grad.clone() for t in inputs]
    y.backward(grad)
    for t, first in zip(inputs, once, strict=True):
        assert torch.equal(t.grad, 2 * first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward(grad)


@pytest.mark.parametrize("which", range(5))
def test_a_changed_input_is_noticed(which):
    norm = every_norm(5, F64)[which]
    inputs = leaves(norm, (True, True))
    x = inputs[0] * 1.0
    y = norm.ours(x, *inputs[1:])
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(torch.ones_like(y))


@pytest.mark.parametrize("which", range(5))
def test_a_second_derivative_is_refused_and_not_wrong(which):
    norm = every_norm(5, F64)[which]
    inputs = leaves(norm, (True, True))
    y = norm.ours(*inputs)
    (grad,) = torch.autograd.grad(y, inputs[0], torch.ones_like(y).requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.backward(torch.ones_like(grad))
