"""What training does around a model: autocast, accumulated gradients, replicas in threads."""

import copy
import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests import tolerances

from .models import EVERY, MODES, assert_near, assert_same_state, data, pair, step


@EVERY
@MODES
# What PyTorch's RMSNorm says of its own.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_autocast(training, name):
    """The dtypes of PyTorch's model, and its results but for bfloat16's roundings."""
    theirs, ours = (m.train(training) for m in pair(name))
    x, grad = data(name)
    found = []
    for model in (ours, theirs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(x)
        assert y.dtype == torch.bfloat16
        y.backward(grad.to(y.dtype))
        found.append([y.detach(), *(p.grad for p in model.parameters())])
    exact = pair(name)[1].train(training).double()
    right = step(exact, *(t.double() for t in (x, grad)))
    right = [right[0], *(p.grad for p in exact.parameters())]
    for a, b, r in zip(*found, right, strict=True):
        assert a.dtype == b.dtype
        # Never farther from right than twice what PyTorch is, or than a rounding of the largest.
        near = max(2 * float((b - r).abs().max()), torch.finfo(torch.bfloat16).eps * float(r.abs().max()))
        assert float((a - r).abs().max()) <= near
    if training:
        for key, t in exact.state_dict().items():
            if "running" in key:
                torch.testing.assert_close(ours.state_dict()[key].double(), t, rtol=0.02, atol=0.02)


@EVERY
def test_autocast_with_checkpointing(name):
    """The repeated forward pass runs under autocast too, and its batch is counted once."""
    _, ours = pair(name)
    x, grad = data(name)
    found = []
    for model, repeated in ((ours, True), (copy.deepcopy(ours), False)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = checkpoint(model, x, use_reentrant=False) if repeated else model(x)
        y.backward(grad.to(y.dtype))
        found.append([y.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@EVERY
def test_gradient_accumulation(name):
    """Four small batches, one step of the optimizer."""
    models = pair(name)
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for seed in range(8):
            x, grad = data(name, seed=seed)
            model(x).backward(grad / 4)
            if seed % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    theirs, ours = models
    started = pair(name)[0].state_dict()
    for key, t in theirs.state_dict().items():
        assert not torch.equal(t, started[key])
        near = tolerances.TRAINING * float(t.abs().max())
        torch.testing.assert_close(ours.state_dict()[key], t, rtol=0, atol=near)


@EVERY
def test_accumulated_gradients_are_the_sum(name):
    theirs, ours = (m.eval() for m in pair(name))
    batches = [data(name, seed=seed) for seed in range(3)]
    for x, grad in batches:
        ours(x).backward(grad)
    whole = step(theirs, *map(torch.cat, zip(*batches, strict=True)))
    assert_near([p.grad for _, p in sorted(ours.named_parameters())], whole[2:])


class Replicated(torch.nn.Module):
    """What `DataParallel` does with devices, done with threads on one: replicas, each a part of the batch."""

    def __init__(self, model, count):
        super().__init__()
        self.model, self.count = model, count

    def forward(self, x):
        parts = x.chunk(self.count)
        replicas = [replica(self.model) for _ in parts]
        outputs = [None] * len(parts)

        def run(i):
            outputs[i] = replicas[i](parts[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(parts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return torch.cat(outputs)


def replica(module):
    """As `torch.nn.parallel.replicate`: parameters are attributes, copies that lead back to the model's."""
    made = module._replicate_for_data_parallel()
    for name, p in module._parameters.items():
        if p is None:
            made._parameters[name] = None
        else:
            setattr(made, name, p * 1)
    for name, buffer in module._buffers.items():
        made._buffers[name] = None if buffer is None else buffer.clone()
    for name, child in module._modules.items():
        made._modules[name] = replica(child)
    return made


@EVERY
@MODES
def test_replicas(training, name):
    theirs, ours = (m.train(training) for m in pair(name))
    batch = data(name, rows=8)
    assert_near(step(Replicated(ours, 2), *batch), step(Replicated(theirs, 2), *batch))
    assert_same_state(ours, theirs)  # a replica's statistics are its own
