"""BatchNorm's running statistics against the reference, in every dtype, by momentum and by average."""

import numpy as np
import pytest
import torch

import normkit as nk
from normkit import reference
from tests import tolerances
from tests.data import DTYPES, name_of, normal
from tests.oracle import accumulated, exact, unit

SHAPES = [(5, 3), (2, 3), (4, 3, 6), (2, 3, 4, 5), (70, 17), (3, 1, 5000)]


def assert_near(ours, right, dtype):
    coarser = max(accumulated(dtype), ours.dtype, key=lambda d: torch.finfo(d).eps)
    error = np.abs(exact(ours) - right) / unit(np.abs(right).max(), coarser)
    assert error.max() <= tolerances.RUNNING, error.max()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("running_dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_step(shape, momentum, running_dtype, dtype):
    x = normal(shape, dtype) * 2 + 3
    mean, var = (
        torch.full((shape[1],), 0.5, dtype=running_dtype),
        torch.full((shape[1],), 2.0, dtype=running_dtype),
    )
    right = reference.batch_norm(exact(x), exact(mean), exact(var), training=True, momentum=momentum)
    nk.functional.batch_norm(x, mean, var, training=True, momentum=momentum)
    assert mean.dtype == var.dtype == running_dtype
    assert_near(mean, right.running_mean, dtype)
    assert_near(var, right.running_var, dtype)
    if momentum == 0:
        assert (mean == 0.5).all()
        assert (var == 2).all()


@pytest.mark.parametrize("given", ["mean", "var"])
def test_one_of_the_two_alone(given):
    x = normal((6, 3))
    tracked = torch.full((3,), 0.5)
    both = [torch.full((3,), 0.5), torch.full((3,), 0.5)]
    pair = (tracked, None) if given == "mean" else (None, tracked)
    nk.functional.batch_norm(x, *pair, training=True)
    nk.functional.batch_norm(x, *both, training=True)
    assert torch.equal(tracked, both[0 if given == "mean" else 1])


@pytest.mark.parametrize("momentum", [0.1, None, 0.3])
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5)], ids=str)
def test_a_layer_over_several_batches(shape, momentum):
    layer = nk.BatchNorm1d(3, momentum=momentum)
    mean, var, tracked = np.zeros(3), np.ones(3), 0
    for step in range(4):
        x = normal(shape, seed=step) * (step + 1) + step
        layer(x)
        _, mean, var, tracked = reference.batch_norm(
            exact(x), mean, var, training=True, momentum=momentum, num_batches_tracked=tracked
        )
        assert int(layer.num_batches_tracked) == tracked == step + 1
    assert_near(layer.running_mean, mean, torch.float32)
    assert_near(layer.running_var, var, torch.float32)


def test_inference_leaves_them():
    layer = nk.BatchNorm2d(3)
    layer(normal((4, 3, 2, 2)))
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    layer.eval()
    x = normal((4, 3, 2, 2), seed=1).requires_grad_()
    layer(x).backward(torch.ones(x.shape))
    for name, t in layer.state_dict().items():
        assert torch.equal(t, before[name])


def test_without_tracking_a_batch_is_normalized_by_its_own_in_inference_too():
    layer = nk.BatchNorm1d(3, track_running_stats=False)
    assert not [name for name in layer.state_dict() if "running" in name or "tracked" in name]
    x = normal((6, 3))
    trained = layer(x)
    assert torch.equal(layer.eval()(x), trained)
    right = reference.batch_norm(exact(x), None, None, np.ones(3), np.zeros(3)).output
    np.testing.assert_allclose(exact(trained), right, rtol=0, atol=1e-6)


def test_the_layer_can_forget():
    layer = nk.BatchNorm1d(3)
    layer(normal((6, 3)))
    layer.reset_running_stats()
    assert not layer.running_mean.any()
    assert (layer.running_var == 1).all()
    assert layer.num_batches_tracked == 0
