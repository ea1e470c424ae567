"""What the reference gives: known values, precision, and arguments that stay as they were."""

import math

import numpy as np
import pytest

from normkit import reference

from .cases import operands, running_statistics
from .close import ROUNDING, assert_close, assert_gradients_close


def test_layer_norm_by_hand():
    # mean 2, variance 1 (of 2 values, biased), root sqrt(1 + 3) = 2
    actual = reference.layer_norm(
        np.array([[1.0, 3.0]]), 2, np.array([4.0, 6.0]), np.array([0.5, 0.25]), eps=3.0
    )
    np.testing.assert_array_equal(actual, [[-1.5, 3.25]])


@pytest.mark.parametrize(("eps_mode", "root"), [("inside", np.sqrt(25 + 11)), ("outside", 5 + 11)])
def test_rms_norm_by_hand(eps_mode, root):
    x, weight, bias = np.array([1.0, 7.0]), np.array([2.0, 3.0]), np.array([0.5, 0.25])
    actual = reference.rms_norm(x, 2, weight, 11.0, bias=bias, eps_mode=eps_mode, gain_offset=1.0)
    np.testing.assert_allclose(actual, [3 * 1 / root + 0.5, 4 * 7 / root + 0.25], rtol=1e-15)


def test_gain_offset_means_nothing_without_a_weight():
    x = operands(1, (2, 4), (4,))[1]
    np.testing.assert_array_equal(reference.rms_norm(x, 4, gain_offset=1.0), reference.rms_norm(x, 4))


def test_batch_norm_by_hand():
    # mean 2; biased variance 2/3 normalizes, unbiased variance 1 is tracked.
    x = np.array([[1.0], [2.0], [3.0]])
    result = reference.batch_norm(
        x, np.array([10.0]), np.array([20.0]), training=True, momentum=0.25, eps=0.0
    )
    np.testing.assert_allclose(result.output, (x - 2) / np.sqrt(2 / 3), rtol=1e-15)
    np.testing.assert_array_equal(result.running_mean, [0.75 * 10 + 0.25 * 2])
    np.testing.assert_array_equal(result.running_var, [0.75 * 20 + 0.25 * 1])
    assert result.num_batches_tracked is None


def test_batch_norm_inference_by_hand():
    x = np.array([[1.0, 1.0], [3.0, 3.0]])
    result = reference.batch_norm(
        x, [1.0, 3.0], [3.0, 15.0], [2.0, 2.0], [0.5, 0.5], eps=1.0, num_batches_tracked=7
    )
    np.testing.assert_array_equal(result.output, [[0.5, -0.5], [2.5, 0.5]])
    np.testing.assert_array_equal(result.running_mean, [1.0, 3.0])
    np.testing.assert_array_equal(result.running_var, [3.0, 15.0])
    assert result.num_batches_tracked == 7


def test_the_articles_examples():
    rng = np.random.default_rng(2)
    images = rng.standard_normal((16, 64, 32, 32)).astype(np.float32)
    y = reference.batch_norm(images, np.zeros(64), np.ones(64), np.ones(64), np.zeros(64), True).output
    assert y.shape == images.shape
    np.testing.assert_allclose(y.mean((0, 2, 3)), np.zeros(64), atol=1e-14)
    np.testing.assert_allclose(y.var((0, 2, 3)), np.ones(64), rtol=2e-5)  # eps is 1e-5

    samples = rng.standard_normal((16, 64)).astype(np.float32)
    y = reference.layer_norm(samples, 64, np.ones(64), np.zeros(64))
    np.testing.assert_allclose(y.mean(1), np.zeros(16), atol=1e-14)
    np.testing.assert_allclose(y.var(1), np.ones(16), rtol=3e-5)

    for eps_mode in ("inside", "outside"):
        y = reference.rms_norm(samples, 64, np.ones(64), 1e-8, bias=np.full(64, 0.5), eps_mode=eps_mode)
        np.testing.assert_allclose(((y - 0.5) ** 2).mean(1), np.ones(16), rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_eps_none_is_the_epsilon_of_the_input(dtype):
    x = (operands(3, (2, 8), (8,))[1] * 1e-3).astype(dtype)
    expected = reference.rms_norm(x, 8, eps=float(np.finfo(dtype).eps))
    np.testing.assert_array_equal(reference.rms_norm(x, 8), expected)
    assert np.any(expected != reference.rms_norm(x, 8, eps=2 * float(np.finfo(dtype).eps)))


@pytest.mark.parametrize(
    ("dtype", "result"),
    [("f2", np.float64), ("f4", np.float64), (">f4", np.float64), ("f8", np.float64), ("g", np.longdouble)],
)
def test_float64_is_the_least_precision(dtype, result):
    dy, x, weight, bias = operands(4, (4, 3), (3,), dtype=dtype)
    running = running_statistics(5, 3, dtype)
    batch = reference.batch_norm(x, *running, weight, bias, True)
    arrays = [
        reference.layer_norm(x, 3, weight, bias),
        reference.rms_norm(x, 3, weight, 0.1, bias=bias),
        *batch[:3],
        *reference.batch_norm(x, *running, weight, bias)[:3],
        *reference.layer_norm_backward(dy, x, 3, weight, bias),
        *reference.rms_norm_backward(dy, x, 3, weight, 0.1, bias=bias),
        *reference.batch_norm_backward(dy, x, *running, weight, bias, True),
    ]
    assert {array.dtype for array in arrays} == {np.dtype(result)}
    raised = [a.astype(result) for a in (x, weight, bias)]
    np.testing.assert_array_equal(arrays[0], reference.layer_norm(raised[0], 3, *raised[1:]))


@pytest.mark.skipif(
    np.finfo(np.longdouble).eps > 1e-18, reason="longdouble is float64 here: no sharper oracle"
)
@pytest.mark.parametrize("offset", [0.0, 2.0**20, -(2.0**40), 2.0**50 + 0.25])
def test_precision_at_an_offset(offset):
    # The mean of 1000 numbers near 2^40 is rounded to 1e-4; only a mean in two parts keeps x - mu.
    dy, x, weight, bias = operands(6, (5, 1000), (1000,))
    x = x + offset
    long = [a.astype(np.longdouble) for a in (dy, x, weight, bias)]
    expected = reference.layer_norm(long[1], 1000, long[2], long[3])
    assert_close(reference.layer_norm(x, 1000, weight, bias), expected, ROUNDING)
    actual = reference.layer_norm_backward(dy, x, 1000, weight, bias)
    expected = reference.layer_norm_backward(long[0], long[1], 1000, long[2], long[3])
    assert_gradients_close(actual, expected, ROUNDING)


def test_the_tracked_mean_is_the_mean_to_the_last_place():
    # NumPy adds along this axis one after the other, which alone would lose three digits.
    x = operands(12, (20_000, 3), (3,))[1] + 1e6
    result = reference.batch_norm(x, np.zeros(3), np.ones(3), training=True, momentum=1.0)
    expected = [math.fsum(channel) / len(x) for channel in x.T]
    np.testing.assert_allclose(result.running_mean, expected, rtol=2.5e-16)


def test_an_offset_changes_nothing():
    # Quarters are exact at this offset, so the two inputs have the same deviations from their mean.
    x = np.random.default_rng(7).integers(-8, 8, (3, 64)) / 4
    np.testing.assert_allclose(
        reference.layer_norm(x + 2.0**45, 64), reference.layer_norm(x, 64), rtol=1e-12, atol=1e-14
    )


def test_one_element_in_a_row():
    x, dy = np.array([[3.0], [-2.0]]), np.array([[1.5], [0.5]])
    np.testing.assert_array_equal(reference.layer_norm(x, 1, [2.0], [0.5]), [[0.5], [0.5]])
    np.testing.assert_array_equal(
        reference.layer_norm_backward(dy, x, 1, [2.0], [0.5]).grad_input, np.zeros((2, 1))
    )
    np.testing.assert_array_equal(reference.rms_norm(x, 1, [2.0], eps=0.0), [[2.0], [-2.0]])
    np.testing.assert_array_equal(reference.batch_norm([[3.0]], [1.0], [4.0], eps=0.0).output, [[1.0]])


def test_what_is_not_a_number_stays_in_its_row_without_a_warning():
    x = np.array([[np.nan, 1.0], [np.inf, 1.0], [2.0, 2.0], [1.0, 3.0]])
    finite = [False, False, False, True]  # the third: 0/0, a constant row with eps = 0
    np.testing.assert_array_equal(np.isfinite(reference.layer_norm(x, 2, eps=0.0)).all(1), finite)
    for eps_mode in ("inside", "outside"):
        gradients = reference.rms_norm_backward(x, x[::-1].copy(), 2, eps=0.0, eps_mode=eps_mode)
        assert np.isnan(gradients.grad_input[3]).any()


def test_strides_do_not_matter():
    dy, x, weight, bias = operands(8, (4, 3, 5), (3, 5))
    away = [np.asfortranarray(a) for a in (dy, x)]
    away.append(np.repeat(weight, 2, axis=1)[:, ::2])
    expected = reference.layer_norm_backward(dy, x, (3, 5), weight, bias)
    assert_gradients_close(reference.layer_norm_backward(*away[:2], (3, 5), away[2], bias), expected, 1e-14)


def calls(dy, x, weight, bias, mean, var):
    yield from [reference.layer_norm(x, 3, weight, bias), reference.rms_norm(x, 3, weight, bias=bias)]
    yield from reference.layer_norm_backward(dy, x, 3, weight, bias)
    yield from reference.rms_norm_backward(dy, x, 3, weight, bias=bias)
    yield from reference.rms_norm_backward(dy[0], x[0], 3, weight, bias=bias, eps_mode="outside")
    for training in (True, False):
        yield from reference.batch_norm(x, mean, var, weight, bias, training)[:3]
        yield from reference.batch_norm_backward(dy, x, mean, var, weight, bias, training)
    yield from [
        reference.layer_norm(x, 3),
        reference.rms_norm(x, 3),
        reference.batch_norm(x, None, None).output,
    ]


def test_arguments_stay_as_they_were():
    arguments = [*operands(9, (4, 3), (3,)), *running_statistics(10, 3)]
    before = [a.copy() for a in arguments]
    for argument in arguments:
        argument.flags.writeable = False
    for result in calls(*arguments):
        assert not any(np.shares_memory(result, argument) for argument in arguments)
        assert result.flags.writeable
    for argument, was in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(argument, was)
