"""`torch.utils.checkpoint`: a forward pass is repeated in the backward pass, its batch counted once."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from .models import EVERY, assert_near, assert_same_state, data, pair, step

REENTRANT = pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not"])


def checkpointed(model, reentrant):
    return Wrapped(model, lambda x: checkpoint(model, x, use_reentrant=reentrant))


class Wrapped(torch.nn.Module):
    """A model that is called some other way."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x):
        return self.call(x)


def in_parts(model, reentrant):
    return Wrapped(model, lambda x: checkpoint_sequential(model, 3, x, use_reentrant=reentrant))


def nested(model, reentrant):
    first, rest = model[:3], model[3:]

    def both(x):
        return checkpoint(rest, checkpoint(first, x, use_reentrant=False), use_reentrant=False)

    return Wrapped(model, lambda x: checkpoint(both, x, use_reentrant=reentrant))


@REENTRANT
@EVERY
@pytest.mark.parametrize("saving", [checkpointed, in_parts, nested])
def test_a_step_is_the_same(saving, name, reentrant):
    plain, ours = pair(name)
    for seed in range(2):
        batch = data(name, seed=seed)
        assert_near(step(saving(ours, reentrant), *batch), step(plain, *batch))
    # `plain` is PyTorch's own without checkpointing: each of the two batches counted once.
    assert_same_state(ours, plain)


@REENTRANT
def test_pytorchs_counts_twice(reentrant):
    """What ours does not do; if PyTorch mends this, `normkit.functional` need not look."""
    theirs, ours = pair("convnet")
    for model in (theirs, ours):
        step(checkpointed(model, reentrant), *data("convnet"))
    assert [int(m[1].num_batches_tracked) for m in (theirs, ours)] == [2, 1]


@REENTRANT
def test_a_cumulative_average(reentrant):
    _, ours = pair("convnet")
    ours[1].momentum = ours[4].momentum = None
    _, plain = pair("convnet")
    plain[1].momentum = plain[4].momentum = None
    for seed in range(2):
        step(checkpointed(ours, reentrant), *data("convnet", seed=seed))
        step(plain, *data("convnet", seed=seed))
    for key, t in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[key], t), key


def test_a_batch_after_a_backward_pass_counts():
    _, ours = pair("convnet")
    for seed in range(3):
        step(ours, *data("convnet", seed=seed))
        with torch.no_grad():
            ours(data("convnet", seed=-seed)[0])
    assert int(ours[1].num_batches_tracked) == 6


@pytest.mark.usefixtures("fresh")
def test_a_compiled_checkpoint():
    plain, ours = pair("convnet")
    compiled = torch.compile(
        lambda x: checkpoint(ours, x, use_reentrant=False), fullgraph=True, backend="aot_eager"
    )
    for seed in range(2):
        batch = data("convnet", seed=seed)
        assert_near(step(Wrapped(ours, compiled), *batch), step(plain, *batch))
    assert_same_state(ours, plain)
