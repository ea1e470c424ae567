"""What PyTorch does to modules: copying, saving, autocast, hooks, meta tensors, dtypes."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.utils.prune
import torch.utils.checkpoint

import normkit as nk
from tests.data import DTYPES, name_of, normal

from .models import LAYERS, OURS, pair

EVERY_LAYER = pytest.mark.parametrize("name", LAYERS)


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def torch_saved(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def state_saved(layer):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(layer)
    for t in other.state_dict().values():
        t.zero_()
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    return other


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), torch_saved, state_saved]
)
@EVERY_LAYER
def test_copies(name, copied):
    _, ours, shape = pair(name)
    ours(normal(shape))
    other = copied(ours.eval())
    assert type(other) is type(ours)
    assert repr(other) == repr(ours)
    x = normal(shape, seed=1)
    assert_same(other(x), ours(x))
    assert not {t.data_ptr() for t in other.parameters()} & {t.data_ptr() for t in ours.parameters()}


def test_copies_of_rms_norms_extras():
    layer = nk.RMSNorm(6, bias=True, eps_mode="outside", gain_offset=1.0)
    other = pickle.loads(pickle.dumps(layer))
    assert repr(other) == repr(layer)
    assert_same(other(normal((3, 6))), layer(normal((3, 6))))


def assert_near_in_half(ours, theirs):
    """PyTorch rounds some of its norms to the half type at every step: five roundings at most."""
    eps = max(torch.finfo(ours.dtype).eps, torch.finfo(torch.bfloat16).eps)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5 / 2 * eps * float(theirs.detach().abs().max()))


# What PyTorch's RMSNorm says of its own.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("of", [torch.float32, torch.bfloat16], ids=name_of)
@EVERY_LAYER
def test_autocast_gives_pytorchs_dtype(name, of, dtype):
    theirs, ours, shape = pair(name)
    if name.startswith("RMSNorm"):  # None is the input's epsilon for us, float32's for PyTorch
        theirs.eps = ours.eps = 1e-6
    x = normal(shape, of)
    with torch.autocast("cpu", dtype=dtype):
        a, b = ours(x), theirs(x)
    assert a.dtype == b.dtype
    assert_near_in_half(a, b)


def test_autocast_in_a_model():
    models = [torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 8))]
    models.append(copy.deepcopy(models[0]))
    models[1][1].__class__ = nk.LayerNorm
    x = normal((4, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs, ours = (model(x) for model in models)
        assert models[1][1](models[1][0](x)).dtype == models[0][1](models[0][0](x)).dtype
    assert ours.dtype == theirs.dtype
    for y in (theirs, ours):
        y.backward(torch.ones_like(y))
    for a, b in zip(models[1].parameters(), models[0].parameters(), strict=True):
        assert a.grad.dtype == b.grad.dtype
        assert_near_in_half(a.grad, b.grad)


@EVERY_LAYER
def test_hooks(name):
    theirs, ours, shape = pair(name)
    seen = {}
    for which, layer in (("ours", ours), ("theirs", theirs)):
        calls = seen[which] = []
        layer.register_forward_pre_hook(lambda m, i, calls=calls: calls.append(i[0].detach()))
        layer.register_forward_hook(lambda m, i, o, calls=calls: calls.append(o.detach()))
        layer.register_full_backward_pre_hook(lambda m, g, calls=calls: calls.append(g[0]))
        layer.register_full_backward_hook(lambda m, gi, go, calls=calls: calls.extend([gi[0], go[0]]))
        x = normal(shape).requires_grad_()
        layer(x).backward(normal(shape, seed="grad"))
        calls.append(x.grad)
    assert len(seen["ours"]) == len(seen["theirs"]) == 6
    for a, b in zip(seen["ours"], seen["theirs"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@EVERY_LAYER
def test_meta(name):
    layer, arguments, options, shape = LAYERS[name]
    ours = OURS[layer](*arguments, **options, device="meta")
    assert all(t.is_meta for t in ours.state_dict().values())
    y = ours(torch.empty(shape, device="meta"))
    assert y.is_meta
    assert y.shape == shape
    real = ours.to_empty(device="cpu")
    real.reset_parameters()
    assert real(normal(shape)).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@EVERY_LAYER
def test_to_a_dtype(name, dtype):
    theirs, ours, shape = pair(name)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    a, b = ours(normal(shape, dtype)), theirs(normal(shape, dtype))
    assert a.dtype == b.dtype == dtype
    # Five roundings of PyTorch's and as many of ours, at the largest value.
    torch.testing.assert_close(a, b, rtol=0, atol=5 * torch.finfo(dtype).eps * float(b.detach().abs().max()))
    for key, t in theirs.state_dict().items():
        assert ours.state_dict()[key].dtype == t.dtype
    layer, arguments, options, _ = LAYERS[name]
    assert {p.dtype for p in OURS[layer](*arguments, **options, dtype=dtype).parameters()} <= {dtype}


@EVERY_LAYER
def test_no_grad_and_inference_mode(name):
    _, ours, shape = pair(name)
    x = normal(shape)
    for layer in (ours, copy.deepcopy(ours).eval()):
        with torch.no_grad():
            y = layer(x)
        assert y.grad_fn is None
        with torch.inference_mode():
            assert copy.deepcopy(layer)(x).is_inference()


@EVERY_LAYER
def test_frozen_parameters(name):
    _, ours, shape = pair(name)
    for p in ours.parameters():
        p.requires_grad_(False)
    x = normal(shape).requires_grad_()
    ours(x).backward(normal(shape, seed="grad"))
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in ours.parameters())
    assert ours(x.detach()).grad_fn is None


ONE_OF_EACH = pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "BatchNorm2d"])


@ONE_OF_EACH
def test_parametrizations(name):
    class Squared(torch.nn.Module):
        def forward(self, w):
            return w * w

    theirs, ours, shape = pair(name)
    for layer in (theirs, ours):
        torch.nn.utils.parametrize.register_parametrization(layer, "weight", Squared())
    x, grad = normal(shape), normal(shape, seed="grad")
    for layer in (theirs, ours):
        layer(x).backward(grad)
    found, expected = (m.parametrizations.weight.original.grad for m in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@ONE_OF_EACH
def test_pruning(name):
    theirs, ours, shape = pair(name)
    for layer in (theirs, ours):
        mask = torch.ones(layer.weight.shape)
        mask[..., 1] = 0
        torch.nn.utils.prune.custom_from_mask(layer, "weight", mask)
    x, grad = normal(shape), normal(shape, seed="grad")
    for layer in (theirs, ours):
        layer(x).backward(grad)
    torch.testing.assert_close(ours.weight_orig.grad, theirs.weight_orig.grad, rtol=1e-5, atol=1e-5)
    assert not ours.weight_orig.grad[..., 1].any()
    assert ours.weight_orig.grad.any()


@ONE_OF_EACH
def test_a_buffer_or_parameter_of_another_kind_is_still_read(name):
    """An attribute in the parameter's place, as sharded training puts there."""
    _, ours, shape = pair(name)
    x = normal(shape)
    right = ours(x).detach()
    for key in ("weight", "running_mean"):
        if hasattr(ours, key):
            value = getattr(ours, key)
            delattr(ours, key)
            ours.__dict__[key] = value.detach()
    assert_same(ours(x).detach(), right)


def test_checkpointing_gives_the_same_gradients():
    _, ours, shape = pair("LayerNorm")
    x, grad = normal(shape).requires_grad_(), normal(shape, seed="grad")
    torch.utils.checkpoint.checkpoint(ours, x, use_reentrant=False).backward(grad)
    recomputed = x.grad.clone()
    x.grad = None
    ours(x).backward(grad)
    assert_same(recomputed, x.grad)
