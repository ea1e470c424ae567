"""The reference and PyTorch in float64 agree, forward and backward, wherever PyTorch has the norm."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from normkit import reference

from .cases import AFFINE, BATCH_SHAPES, EPS, RMS_OPTIONS, ROW_SHAPES, operands, running_statistics
from .close import FLOAT64, assert_close, assert_gradients_close


def tensor(array):
    return None if array is None else torch.from_numpy(array.copy())


def torch_results(forward, grad_output, *arrays):
    """The output of forward, and its gradients by autograd."""
    leaves = [None if a is None else tensor(a).requires_grad_() for a in arrays]
    output = forward(*leaves)
    given = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(output, given, tensor(grad_output)))
    return output.detach().numpy(), [None if leaf is None else next(found).numpy() for leaf in leaves]


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(("x_shape", "shape"), [*ROW_SHAPES, ((16, 64), (64,)), ((3, 1000), (1000,))])
def test_layer_norm(x_shape, shape, affine, eps):
    dy, x, weight, bias = operands(1, x_shape, shape, affine)
    output, gradients = torch_results(
        lambda *a: F.layer_norm(a[0], shape, a[1], a[2], eps), dy, x, weight, bias
    )
    assert_close(reference.layer_norm(x, shape, weight, bias, eps), output, FLOAT64)
    assert_gradients_close(reference.layer_norm_backward(dy, x, shape, weight, bias, eps), gradients, FLOAT64)


def test_defaults():
    x, weight, bias = operands(11, (16, 64), (64,))[1:]
    torch_x = tensor(x * 1e-3)  # so that eps matters
    assert_close(reference.layer_norm(x * 1e-3, 64), F.layer_norm(torch_x, (64,)).numpy(), FLOAT64)
    assert_close(reference.rms_norm(x * 1e-3, 64), F.rms_norm(torch_x, (64,)).numpy(), FLOAT64)
    mean, var = running_statistics(12, 64)
    theirs = [tensor(mean), tensor(var * 1e-6)]
    ours = reference.batch_norm(x * 1e-3, mean, var * 1e-6, weight, bias)
    expected = F.batch_norm(torch_x, *theirs, tensor(weight), tensor(bias))
    assert_close(ours.output, expected.numpy(), FLOAT64)
    F.batch_norm(torch_x, *theirs, training=True)
    ours = reference.batch_norm(x * 1e-3, mean, var * 1e-6, training=True)
    assert_close(ours.running_mean, theirs[0].numpy(), FLOAT64)


@pytest.mark.parametrize("eps", [None, 1e-8, 0.5])
@pytest.mark.parametrize("with_weight", [False, True])
@pytest.mark.parametrize(("x_shape", "shape"), [*ROW_SHAPES, ((16, 64), (64,)), ((3, 1000), (1000,))])
def test_rms_norm(x_shape, shape, with_weight, eps):
    dy, x, weight, _ = operands(2, x_shape, shape, (with_weight, False))
    output, gradients = torch_results(lambda *a: F.rms_norm(a[0], shape, a[1], eps), dy, x, weight)
    assert_close(reference.rms_norm(x, shape, weight, eps), output, FLOAT64)
    assert_gradients_close(
        reference.rms_norm_backward(dy, x, shape, weight, eps), [*gradients, None], FLOAT64
    )


def plain_rms_norm(x, weight, bias, shape, eps, eps_mode, gain_offset):
    square = x.square().mean(dim=tuple(range(-len(shape), 0)), keepdim=True)
    y = x / ((square + eps).sqrt() if eps_mode == "inside" else square.sqrt() + eps)
    y = y if weight is None else y * (gain_offset + weight)
    return y if bias is None else y + bias


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("options", RMS_OPTIONS)
@pytest.mark.parametrize(("x_shape", "shape"), ROW_SHAPES)
def test_rms_norm_variants_against_the_plain_formula(x_shape, shape, options, affine):
    dy, x, weight, bias = operands(3, x_shape, shape, affine)
    output, gradients = torch_results(lambda *a: plain_rms_norm(*a, shape, **options), dy, x, weight, bias)
    assert_close(reference.rms_norm(x, shape, weight, bias=bias, **options), output, FLOAT64)
    actual = reference.rms_norm_backward(dy, x, shape, weight, bias=bias, **options)
    assert_gradients_close(actual, gradients, FLOAT64)


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("x_shape", [*BATCH_SHAPES, (16, 64, 32, 32)])
def test_batch_norm(x_shape, training, affine):
    shape = x_shape[1:2]
    dy, x, weight, bias = operands(4, x_shape, shape, affine)
    running = running_statistics(5, shape)
    theirs = [tensor(statistic) for statistic in running]
    output, gradients = torch_results(
        lambda *a: F.batch_norm(a[0], *theirs, a[1], a[2], training, 0.3, 0.2), dy, x, weight, bias
    )
    ours = reference.batch_norm(x, *running, weight, bias, training, 0.3, 0.2)
    assert_close(ours.output, output, FLOAT64)
    assert_close(ours.running_mean, theirs[0].numpy(), FLOAT64)
    assert_close(ours.running_var, theirs[1].numpy(), FLOAT64)
    actual = reference.batch_norm_backward(dy, x, *running, weight, bias, training, 0.2)
    assert_gradients_close(actual, gradients, FLOAT64)


@pytest.mark.parametrize("momentum", [None, 0.1, 0.0, 1.0])
def test_running_statistics_over_many_batches(momentum):
    module = torch.nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    mean, var, tracked = np.zeros(3), np.ones(3), 0
    rng = np.random.default_rng(6)
    for size in [4, 2, 0, 9]:
        x = rng.standard_normal((size, 3, 2)) * 3 + 1
        module(tensor(x))
        _, mean, var, tracked = reference.batch_norm(
            x, mean, var, training=True, momentum=momentum, num_batches_tracked=tracked
        )
        assert_close(mean, module.running_mean.numpy(), FLOAT64)
        assert_close(var, module.running_var.numpy(), FLOAT64)
        assert tracked == module.num_batches_tracked


def test_without_running_statistics_inference_uses_the_batch():
    module = torch.nn.BatchNorm1d(3, affine=False, track_running_stats=False).eval()
    x = operands(7, (5, 3), (3,))[1]
    result = reference.batch_norm(x, None, None, num_batches_tracked=8)
    assert_close(result.output, module(tensor(x)).numpy(), FLOAT64)
    assert result[1:] == (None, None, 8)


@pytest.mark.parametrize("x_shape", [(0, 3), (0, 3, 2), (2, 3, 0)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_nothing(x_shape, training):
    shape = x_shape[1:2]
    dy, x, weight, bias = operands(8, x_shape, shape)
    running = running_statistics(9, shape)
    theirs = [tensor(statistic) for statistic in running]
    output, gradients = torch_results(
        lambda *a: F.batch_norm(a[0], *theirs, a[1], a[2], training), dy, x, weight, bias
    )
    result = reference.batch_norm(x, *running, weight, bias, training)
    assert_close(result.output, output, 0)
    assert_close(result.running_mean, theirs[0].numpy(), 0)
    assert_close(result.running_var, theirs[1].numpy(), 0)
    actual = reference.batch_norm_backward(dy, x, *running, weight, bias, training)
    assert_gradients_close(actual, gradients, 0)


@pytest.mark.parametrize(
    ("x_shape", "shape"), [((0, 4), (4,)), ((3, 0), (0,)), ((2, 0, 4), (4,)), ((2, 0, 4), (0, 4))]
)
def test_row_norms_of_nothing(x_shape, shape):
    dy, x, weight, bias = operands(10, x_shape, shape)
    output, gradients = torch_results(lambda *a: F.layer_norm(a[0], shape, a[1], a[2]), dy, x, weight, bias)
    assert_close(reference.layer_norm(x, shape, weight, bias), output, 0)
    assert_gradients_close(reference.layer_norm_backward(dy, x, shape, weight, bias), gradients, 0)
    assert_close(reference.rms_norm(x, shape, weight, bias=bias, eps_mode="outside"), output, 0)
    actual = reference.rms_norm_backward(dy, x, shape, weight, bias=bias, eps_mode="outside")
    assert_gradients_close(actual, gradients, 0)
