"""Gradients: against finite differences; recorded where wanted and nowhere else."""

import pytest
import torch

import normkit as nk
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
@pytest.mark.parametrize("affine", [(True, True), (False, False)])
def test_second_derivatives(which, affine):
    norm = every_norm(5, F64)[which]
    inputs = leaves(norm, affine)
    given = [t for t in inputs if t is not None]

    def function(*tensors):
        rest = iter(tensors)
        return norm.ours(*[None if t is None else next(rest) for t in inputs])

    assert torch.autograd.gradgradcheck(function, given)


def test_a_gradient_penalty_reaches_the_weights():
    """A gradient of a gradient that is silently nothing would train the wrong model."""
    x, c = torch.randn(6, 8, dtype=F64), torch.randn(6, 8, dtype=F64)
    found = []
    for layer in (torch.nn.LayerNorm(8, dtype=F64), nk.LayerNorm(8, dtype=F64)):
        h = x.clone().requires_grad_()
        y = (layer(h) * c).sum()
        (g,) = torch.autograd.grad(y, h, create_graph=True)
        (y + 10 * ((g.norm(dim=1) - 1) ** 2).sum()).backward()
        found.append([h.grad, layer.weight.grad])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


THEIRS = {
    "layer_norm": (nk.functional.layer_norm, torch.nn.functional.layer_norm),
    "rms_norm": (nk.functional.rms_norm, torch.nn.functional.rms_norm),
}


# PyTorch's own forward mode loads scripted formulas.
SCRIPTED = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@SCRIPTED
@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("graded", [True, False])
def test_forward_mode_and_function_transforms(name, graded):
    x, t, c = (torch.randn(4, 8, dtype=F64) for _ in range(3))
    w = torch.rand(8, dtype=F64, requires_grad=graded)
    found = []
    for norm in THEIRS[name]:

        def value(a, norm=norm):
            return norm(a, (8,), w, eps=1e-3)

        out, tangent = torch.func.jvp(value, (x,), (t,))
        grad = torch.func.grad(lambda a, f=value: (f(a) * c).sum())(x)
        each = torch.func.vmap(torch.func.grad(lambda a, d, f=value: (f(a) * d).sum()))(x, c)
        jacobian = torch.func.jacfwd(value)(x)
        found.append([v.detach() for v in (out, tangent, grad, each, jacobian)])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@SCRIPTED
@pytest.mark.parametrize("training", [True, False])
def test_forward_mode_and_function_transforms_of_batch_norm(training):
    x, t, c = (torch.randn(4, 3, 5, dtype=F64) for _ in range(3))
    mean, var = torch.randn(3, dtype=F64), torch.rand(3, dtype=F64) + 0.5
    running = (None, None) if training else (mean, var)
    found = []
    for norm in (nk.functional.batch_norm, torch.nn.functional.batch_norm):

        def value(a, norm=norm):
            return norm(a, *running, training=training, eps=1e-3)

        out, tangent = torch.func.jvp(value, (x,), (t,))
        grad = torch.func.grad(lambda a, f=value: (f(a) * c).sum())(x)
        found.append([out, tangent, grad])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)
