"""Models on the meta device and of fake tensors: shapes, dtypes, strides and gradients without data."""

import copy

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from .models import EVERY, MODES, assert_near, data, pair, step


def described(tensors):
    return [(t.shape, t.dtype, t.stride()) for t in tensors]


@EVERY
@MODES
def test_meta(training, name):
    """A step on the meta device has what a real one has, but for its numbers."""
    _, ours = (m.train(training) for m in pair(name))
    real = step(ours, *data(name))
    found = step(ours.to("meta"), *(t.to("meta") for t in data(name)))
    assert all(t.is_meta for t in found)
    assert described(found) == described(real)
    assert all(t.is_meta for t in ours.buffers())


@EVERY
@MODES
def test_fake_tensors(training, name):
    _, ours = (m.train(training) for m in pair(name))
    real = step(ours, *data(name))
    mode = FakeTensorMode()
    batch = [mode.from_tensor(t) for t in data(name)]
    model = fake(ours, mode)
    with mode:
        found = step(model, *batch)
    assert all(isinstance(t, torch._subclasses.FakeTensor) for t in found)
    assert described(found) == described(real)
    assert {t.device.type for t in found} == {"cpu"}


def fake(model, mode):
    """The model with fake parameters and buffers in place of its own."""
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            module._parameters[name] = torch.nn.Parameter(mode.from_tensor(p.detach()))
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = mode.from_tensor(buffer)
    return model


@EVERY
def test_a_model_made_without_memory_and_filled_later(name):
    _, ours = pair(name)
    empty = copy.deepcopy(ours).to("meta")
    empty.load_state_dict(ours.state_dict(), assign=True)
    assert_near(step(empty, *data(name)), step(ours, *data(name)))
