"""PyTorch's layer replaced by ours: the same type of thing, state_dict, outputs, gradients, training."""

import copy
import inspect

import pytest
import torch

import normkit as nk
from tests import tolerances
from tests.data import normal

from .models import LAYERS, MODELS, OURS, pair, swapped

EVERY_LAYER = pytest.mark.parametrize("name", LAYERS)
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def assert_near(ours, theirs, tolerance, about=""):
    size = float(theirs.detach().abs().max()) or 1.0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * size, msg=lambda m: f"{about}\n{m}")


def step(model, x, grad):
    """Output, and the gradients of input and parameters."""
    x = x.detach().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad(y, [x, *model.parameters()], grad)]


@pytest.mark.parametrize(("theirs", "ours"), OURS.items())
def test_is_a(theirs, ours):
    assert issubclass(ours, theirs)
    assert ours.__name__ == theirs.__name__
    expected = inspect.signature(theirs).parameters
    found = inspect.signature(ours).parameters
    assert list(found)[: len(expected)] == list(expected)
    for name, parameter in expected.items():
        assert found[name].default == parameter.default, name
    extra = list(found)[len(expected) :]
    assert all(found[name].kind is inspect.Parameter.KEYWORD_ONLY for name in extra)


@EVERY_LAYER
def test_state_dicts_fit_both_ways(name):
    theirs, ours, shape = pair(name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours(normal(shape))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for key, t in theirs.state_dict().items():
        assert torch.equal(t, ours.state_dict()[key])
        assert t.dtype == ours.state_dict()[key].dtype


@EVERY_LAYER
def test_fresh_parameters_are_the_same(name):
    layer, arguments, options, _ = LAYERS[name]
    theirs, ours = (make(*arguments, **options) for make in (layer, OURS[layer]))
    for key, t in theirs.state_dict().items():
        assert torch.equal(t, ours.state_dict()[key]), key


@EVERY_LAYER
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_computes_the_same(name, training):
    theirs, ours, shape = pair(name)
    theirs.train(training)
    ours.train(training)
    for seed in range(2):
        x, grad = normal(shape, seed=seed) + 1, normal(shape, seed=-seed - 1)
        for a, b in zip(step(ours, x, grad), step(theirs, x, grad), strict=True):
            assert_near(a, b, tolerances.MODEL)
        for key, t in theirs.state_dict().items():
            assert_near(ours.state_dict()[key], t, tolerances.MODEL, key)


@EVERY_MODEL
@pytest.mark.parametrize("training", [True, False])
def test_a_model_computes_the_same(name, training):
    make, shape = MODELS[name]
    theirs = make().train(training)
    ours = swapped(theirs)
    assert any(type(m).__module__.startswith("normkit") for m in ours.modules())
    x = normal(shape)
    grad = normal(theirs(x).shape, seed="grad")
    ours = swapped(theirs)
    names = ["output", "input", *dict(theirs.named_parameters())]
    for about, a, b in zip(names, step(ours, x, grad), step(theirs, x, grad), strict=True):
        assert_near(a, b, tolerances.MODEL, about)


@EVERY_MODEL
def test_ten_steps_of_training(name):
    make, shape = MODELS[name]
    theirs = make()
    ours = swapped(theirs)
    started = copy.deepcopy(theirs.state_dict())
    for model in (ours, theirs):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for seed in range(10):
            optimizer.zero_grad()
            y = model(normal(shape, seed=seed))
            (y - normal(y.shape, seed=("target", seed))).square().mean().backward()
            optimizer.step()
    assert not any(torch.equal(t, started[key]) for key, t in theirs.state_dict().items() if t.dim() == 2)
    for key, t in theirs.state_dict().items():
        if "num_batches" in key:
            assert int(t) == int(ours.state_dict()[key]) == 10
        else:
            assert_near(ours.state_dict()[key], t, tolerances.TRAINING, key)


@pytest.mark.parametrize("name", ["BatchNorm2d", "BatchNorm3d", "BatchNorm1d sequence"])
def test_channels_last_as_pytorch(name):
    theirs, ours, shape = pair(name)
    x = normal(shape).movedim(1, -1).contiguous().movedim(-1, 1)
    assert_near(ours(x), theirs(x), tolerances.MODEL)
    assert ours(x).stride() == theirs(x).stride()


def test_synchronised_conversion_takes_ours_for_batch_norms():
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(nk.BatchNorm2d(3)))
    assert isinstance(model[0], torch.nn.SyncBatchNorm)


def test_rms_norm_extras():
    x = normal((4, 6))
    layer = nk.RMSNorm(6, eps=0.1, bias=True, eps_mode="outside", gain_offset=1.0)
    assert list(layer.state_dict()) == ["weight", "bias"]
    plain = x / (x.square().mean(-1, keepdim=True).sqrt() + 0.1)
    assert_near(layer(x).detach(), plain, tolerances.MODEL)  # fresh: gain 1, bias 0
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(0.25)
    assert_near(layer(x).detach(), plain * 1.5 + 0.25, tolerances.MODEL)
    layer.reset_parameters()
    assert_near(layer(x).detach(), plain, tolerances.MODEL)
    assert list(nk.RMSNorm(6, elementwise_affine=False, bias=True).parameters()) == []


@pytest.mark.parametrize(
    ("ours", "shown"),
    [
        (nk.LayerNorm(4), "LayerNorm((4,), eps=1e-05, elementwise_affine=True"),
        (nk.RMSNorm(4), "RMSNorm((4,), eps=None, elementwise_affine=True)"),
        (nk.RMSNorm(4, bias=True), "RMSNorm((4,), eps=None, elementwise_affine=True, bias=True)"),
        (
            nk.RMSNorm(4, eps_mode="outside"),
            "RMSNorm((4,), eps=None, elementwise_affine=True, eps_mode='outside')",
        ),
        (nk.RMSNorm(4, gain_offset=1.0), "RMSNorm((4,), eps=None, elementwise_affine=True, gain_offset=1.0)"),
    ],
)
def test_repr(ours, shown):
    assert repr(ours).startswith(shown)


@EVERY_LAYER
def test_repr_is_pytorchs_where_nothing_differs(name):
    theirs, ours, _ = pair(name)
    assert repr(ours) == repr(theirs)
