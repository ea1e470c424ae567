"""`torch.func` on whole models: grad, jvp, jacobians, vmap, gradients per sample."""

import torch
from torch.func import functional_call, functionalize, grad, jacrev, jvp, stack_module_state, vjp, vmap

from .models import EVERY, MODELS, MODES, assert_near, assert_same_state, data, pair
from .test_derivatives import F64, SCRIPTED


def state(model):
    return {name: p.detach() for name, p in model.named_parameters()}


def statistics(model):
    """BatchNorm's, which a transformation changes only where they are an argument."""
    return dict(model.named_buffers())


def as_loss(model):
    """The loss of the parameters, for given statistics, an input and an upstream gradient."""
    return lambda parameters, buffers, x, g: (functional_call(model, (parameters, buffers), (x,)) * g).sum()


@EVERY
@MODES
def test_grad(name, training):
    theirs, ours = (m.train(training) for m in pair(name, F64))
    x, g = data(name, F64)
    found = [grad(as_loss(m), argnums=(0, 2))(state(m), statistics(m), x, g) for m in (ours, theirs)]
    assert_near(*([*of_parameters.values(), of_x] for of_parameters, of_x in found))
    assert_same_state(ours, theirs)


@SCRIPTED
@EVERY
def test_jvp_and_vjp(name):
    theirs, ours = (m.eval() for m in pair(name, F64))
    x, g = data(name, F64)
    tangent = data(name, F64, seed="tangent")[0]
    found = []
    for model in (ours, theirs):
        y, pullback = vjp(model, x)
        found.append([y, *pullback(g), *jvp(model, (x,), (tangent,))])
    assert_near(*found)


@EVERY
def test_gradients_per_sample(name):
    """One gradient of every parameter for each sample; BatchNorm with its statistics fixed."""
    theirs, ours = (m.eval() for m in pair(name, F64))
    x, g = data(name, F64)
    found = []
    for model in (ours, theirs):
        each = vmap(grad(as_loss(model)), (None, None, 0, 0))(
            state(model), statistics(model), x[:, None], g[:, None]
        )
        assert all(len(t) == len(x) for t in each.values())
        found.append(list(each.values()))
    assert_near(*found)
    # ... and they are those of one sample after another.
    loss = grad(as_loss(ours))
    alone = [loss(state(ours), statistics(ours), x[i : i + 1], g[i : i + 1]) for i in range(len(x))]
    assert_near(found[0], [torch.stack([a[key] for a in alone]) for key in alone[0]])


@EVERY
def test_jacobian(name):
    theirs, ours = (m.eval() for m in pair(name, F64))
    x = data(name, F64, rows=1)[0]
    assert_near([jacrev(ours)(x)], [jacrev(theirs)(x)])


@EVERY
@MODES
def test_an_ensemble(name, training):
    """Several models at once: vmap over the parameters, and over the statistics they keep."""
    x, g = data(name, F64)
    found = []
    for which in (1, 0):
        models = [pair(name, F64)[which].train(training) for _ in range(2)]
        for p in models[1].parameters():
            p.data += 0.25
        parameters, buffers = stack_module_state(models)
        y = vmap(lambda p, b, x, m=models[0]: functional_call(m, (p, b), (x,)), (0, 0, None))(
            parameters, buffers, x
        )
        each = vmap(grad(as_loss(models[0])), (0, 0, None, None))(parameters, buffers, x, g)
        found.append([y.detach(), *(t.detach() for t in each.values()), *buffers.values()])
        assert not torch.equal(y[0], y[1])
    assert_near(*found)


@EVERY
@MODES
def test_functionalized(name, training):
    """Nothing is changed in place but what is an argument, at the end."""
    x, g = data(name, F64)
    found = []
    for model in (m.train(training) for m in pair(name, F64)):
        buffers = {key: b.clone() for key, b in model.named_buffers()}
        gradients = functionalize(grad(as_loss(model)))(state(model), buffers, x, g)
        found.append([*gradients.values(), *buffers.values()])
    assert_near(*found)


def test_every_model_has_a_norm_of_its_kind():
    kinds = {type(m).__name__ for name in MODELS for m in pair(name)[1].modules()}
    assert kinds >= {"LayerNorm", "RMSNorm", "BatchNorm2d"}
