"""The backward is the derivative of the forward: central differences, random upstream gradients."""

import numpy as np
import pytest

from normkit import reference

from .cases import AFFINE, BATCH_SHAPES, EPS, RMS_OPTIONS, ROW_SHAPES, operands, running_statistics
from .close import FINITE_DIFFERENCE, STEP, assert_gradients_close

LONG = np.longdouble


def differences(forward, grad_output, *arrays):
    """The gradient of sum(grad_output * forward(*arrays)) for each array, element by element."""

    def loss(position, index, by):
        moved = [None if a is None else a.copy() for a in arrays]
        moved[position][index] += by
        return np.sum(grad_output * forward(*moved))

    gradients = []
    for position, array in enumerate(arrays):
        if array is None:
            gradients.append(None)
            continue
        gradient = np.empty_like(array)
        for index in np.ndindex(array.shape):
            rise = loss(position, index, LONG(STEP)) - loss(position, index, -LONG(STEP))
            gradient[index] = rise / (2 * LONG(STEP))
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize(("x_shape", "shape"), ROW_SHAPES)
@pytest.mark.parametrize("eps", EPS)
def test_layer_norm(x_shape, shape, affine, eps):
    dy, x, weight, bias = operands(1, x_shape, shape, affine, LONG)
    expected = differences(lambda *a: reference.layer_norm(a[0], shape, a[1], a[2], eps), dy, x, weight, bias)
    actual = reference.layer_norm_backward(dy, x, shape, weight, bias, eps)
    assert_gradients_close(actual, expected, FINITE_DIFFERENCE)


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize(("x_shape", "shape"), ROW_SHAPES)
@pytest.mark.parametrize("options", [{}, *RMS_OPTIONS])
def test_rms_norm(x_shape, shape, affine, options):
    dy, x, weight, bias = operands(2, x_shape, shape, affine, LONG)
    expected = differences(
        lambda *a: reference.rms_norm(a[0], shape, a[1], bias=a[2], **options), dy, x, weight, bias
    )
    actual = reference.rms_norm_backward(dy, x, shape, weight, bias=bias, **options)
    assert_gradients_close(actual, expected, FINITE_DIFFERENCE)


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("x_shape", BATCH_SHAPES)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(
    ("training", "tracked"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_batch_norm(x_shape, affine, eps, training, tracked):
    shape = x_shape[1:2]
    dy, x, weight, bias = operands(3, x_shape, shape, affine, LONG)
    running = running_statistics(4, shape, LONG) if tracked else (None, None)
    expected = differences(
        lambda *a: reference.batch_norm(a[0], *running, a[1], a[2], training, eps=eps).output,
        dy,
        x,
        weight,
        bias,
    )
    actual = reference.batch_norm_backward(dy, x, *running, weight, bias, training, eps)
    assert_gradients_close(actual, expected, FINITE_DIFFERENCE)


def test_eps_outside_at_a_row_of_zeros_has_the_limit():
    dy, _, weight, _ = operands(5, (2, 4), (4,))
    actual = reference.rms_norm_backward(
        dy, np.zeros((2, 4)), 4, weight, 0.5, eps_mode="outside", gain_offset=1.0
    )
    np.testing.assert_array_equal(actual.grad_input, (1 + weight) * dy / 0.5)
    np.testing.assert_array_equal(actual.grad_weight, np.zeros(4))
    nearby = reference.rms_norm_backward(
        dy, np.full((2, 4), 1e-12), 4, weight, 0.5, eps_mode="outside", gain_offset=1.0
    )
    np.testing.assert_allclose(nearby.grad_input, actual.grad_input, rtol=1e-10)
