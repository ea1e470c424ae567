"""Derivatives of whole models: against finite differences, and against the same model of PyTorch's."""

import pytest
import torch
from torch.autograd import forward_ad

from .models import EVERY, MODES, assert_near, assert_same_state, data, pair, step

F64 = torch.float64
# PyTorch's own forward mode loads scripted formulas.
SCRIPTED = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def of_parameters(model, x):
    """The model as a function of its input and its norms' parameters."""
    names = [n for n, p in model.named_parameters() if p.dim() == 1]
    values = [dict(model.named_parameters())[n] for n in names]

    def function(x, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))

    return function, [x.requires_grad_(), *values]


@EVERY
@MODES
def test_a_step(name, training):
    for dtype in (torch.float32, F64):
        theirs, ours = (m.train(training) for m in pair(name, dtype))
        for seed in range(2):
            batch = data(name, dtype, seed)
            assert_near(step(ours, *batch), step(theirs, *batch))
        assert_same_state(ours, theirs)


@EVERY
@MODES
def test_gradcheck(name, training):
    ours = pair(name, F64)[1].train(training)
    function, inputs = of_parameters(ours, data(name, F64, rows=2)[0])
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True, nondet_tol=0.0)


@EVERY
@MODES
def test_gradgradcheck(name, training):
    ours = pair(name, F64)[1].train(training)
    function, inputs = of_parameters(ours, data(name, F64, rows=2)[0])
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def penalized(model, x, grad):
    """The gradients of a loss that holds a gradient (WGAN-GP's), for every parameter."""
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(model(x), x, grad, create_graph=True)
    loss = (g.flatten(1).norm(dim=1) - 1).square().sum()
    return torch.autograd.grad(loss, [x, *model.parameters()], allow_unused=True)


@EVERY
@MODES
def test_second_derivatives_as_pytorchs(name, training):
    theirs, ours = (m.train(training) for m in pair(name, F64))
    batch = data(name, F64)
    found, right = ([g for g in penalized(m, *batch) if g is not None] for m in (ours, theirs))
    assert len(right) > norms_below_the_top(theirs)
    assert_near(found, right)


def norms_below_the_top(model):
    return sum(1 for p in model.parameters() if p.dim() == 1) // 2


@SCRIPTED
@EVERY
@MODES
def test_forward_mode(name, training):
    theirs, ours = (m.train(training) for m in pair(name, F64))
    x, tangent = data(name, F64)[0], data(name, F64, seed="tangent")[0]
    found = []
    for model in (ours, theirs):
        with forward_ad.dual_level():
            y = model(forward_ad.make_dual(x, tangent))
            found.append([t.detach() for t in forward_ad.unpack_dual(y)])
    assert_near(*found)


@SCRIPTED
@EVERY
def test_forward_over_reverse(name):
    """A Hessian times a vector, the cheap way."""
    theirs, ours = pair(name, F64)
    x, grad = data(name, F64)
    found = []
    for model in (ours, theirs):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone().requires_grad_(), data(name, F64, seed="tangent")[0])
            (g,) = torch.autograd.grad(model(dual), dual, grad, create_graph=True)
            found.append([t.detach() for t in forward_ad.unpack_dual(g)])
    assert_near(*found)
