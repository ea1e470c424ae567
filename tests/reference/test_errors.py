"""A user's mistakes: the error, and that it names the argument, what it was and what is allowed."""

import re

import numpy as np
import pytest

from normkit import reference

X = np.ones((4, 3))
MEAN, VAR = np.zeros(3), np.ones(3)


def layer(**changed):
    return reference.layer_norm(**{"x": X, "normalized_shape": 3, **changed})


def layer_backward(**changed):
    return reference.layer_norm_backward(**{"grad_output": X, "x": X, "normalized_shape": 3, **changed})


def rms(**changed):
    return reference.rms_norm(**{"x": X, "normalized_shape": 3, **changed})


def rms_backward(**changed):
    return reference.rms_norm_backward(**{"grad_output": X, "x": X, "normalized_shape": 3, **changed})


def batch(**changed):
    return reference.batch_norm(
        **{"x": X, "running_mean": MEAN, "running_var": VAR, "training": True, **changed}
    )


def batch_backward(**changed):
    arguments = {
        "grad_output": X,
        "x": X,
        "running_mean": MEAN,
        "running_var": VAR,
        "training": True,
        **changed,
    }
    return reference.batch_norm_backward(**arguments)


ROWS = [
    ({"x": np.ones((4, 3), int)}, TypeError, "x must be .* floating .* got dtype int64"),
    ({"x": np.ones((4, 3), complex)}, TypeError, "x must be .* floating .* got dtype complex128"),
    ({"x": None}, TypeError, "x must be .* floating .* got dtype object"),
    ({"x": "ones"}, TypeError, "x must be .* floating .* got dtype"),
    (
        {"x": np.float64(1.0)},
        ValueError,
        r"normalized_shape must be .* trailing axes of x, got \(3,\) .* shape \(\)",
    ),
    ({"normalized_shape": 4}, ValueError, r"normalized_shape must be .* got \(4,\) for x of shape \(4, 3\)"),
    (
        {"normalized_shape": (4,)},
        ValueError,
        r"normalized_shape must be .* got \(4,\) for x of shape \(4, 3\)",
    ),
    ({"normalized_shape": (1, 4, 3)}, ValueError, r"normalized_shape must be .* got \(1, 4, 3\)"),
    ({"normalized_shape": ()}, ValueError, r"normalized_shape must name at least one axis, got \(\)"),
    ({"normalized_shape": 3.0}, TypeError, "normalized_shape must be an integer .* got 3.0"),
    ({"normalized_shape": (3.0,)}, TypeError, r"normalized_shape must be an integer .* got \(3.0,\)"),
    ({"weight": np.ones(4)}, ValueError, r"weight must have shape \(3,\), .* got shape \(4,\)"),
    ({"weight": np.ones((1, 3))}, ValueError, r"weight must have shape \(3,\), .* got shape \(1, 3\)"),
    ({"weight": np.ones(3, int)}, TypeError, "weight must be .* floating .* got dtype int64"),
    ({"bias": np.ones(1)}, ValueError, r"bias must have shape \(3,\), .* got shape \(1,\)"),
    ({"bias": np.ones(3, bool)}, TypeError, "bias must be .* floating .* got dtype bool"),
    ({"eps": -1e-5}, ValueError, "eps must be 0 or more, got -1e-05"),
    ({"eps": float("nan")}, ValueError, "eps must be finite, got nan"),
    ({"eps": float("inf")}, ValueError, "eps must be finite, got inf"),
    ({"eps": "small"}, TypeError, "eps must be a real number, got 'small' of type str"),
    ({"eps": True}, TypeError, "eps must be a real number, got True of type bool"),
]
RMS = [
    ({"eps_mode": "around"}, ValueError, r"eps_mode must be one of \('inside', 'outside'\), got 'around'"),
    ({"eps_mode": None}, ValueError, "eps_mode must be one of .* got None"),
    ({"gain_offset": None}, TypeError, "gain_offset must be a real number, got None of type NoneType"),
    ({"gain_offset": float("inf")}, ValueError, "gain_offset must be finite, got inf"),
]
BATCH = [
    *[row for row in ROWS if "normalized_shape" not in row[2]],
    ({"eps": None}, TypeError, "eps must be a real number, got None"),
    ({"x": np.ones(3)}, ValueError, r"x must have at least 2 axes, \(N, C, \*\), got shape \(3,\)"),
    ({"x": np.ones((1, 3))}, ValueError, r"x must have more than 1 value per channel .* got shape \(1, 3\)"),
    ({"x": np.ones((1, 3, 1, 1))}, ValueError, "x must have more than 1 value per channel"),
    (
        {"x": np.ones((1, 3)), "running_mean": None, "running_var": None, "training": False},
        ValueError,
        "x must have more than 1 value per channel",
    ),
    ({"running_mean": None}, ValueError, "running_mean must be an array where running_var is one"),
    ({"running_var": None}, ValueError, "running_var must be an array where running_mean is one"),
    ({"running_mean": np.zeros(4)}, ValueError, r"running_mean must have shape \(3,\), .* got shape \(4,\)"),
    (
        {"running_var": np.ones((3, 1))},
        ValueError,
        r"running_var must have shape \(3,\), .* got shape \(3, 1\)",
    ),
    ({"running_var": np.ones(3, int)}, TypeError, "running_var must be .* floating .* got dtype int64"),
    ({"training": 0.1}, TypeError, "training must be True or False, got 0.1 of type float"),
]
TRACKING = [
    ({"momentum": "fast"}, TypeError, "momentum must be a real number, got 'fast'"),
    ({"momentum": float("nan")}, ValueError, "momentum must be finite, got nan"),
    ({"momentum": "fast", "training": False}, TypeError, "momentum must be a real number"),
    (
        {"momentum": None},
        ValueError,
        "num_batches_tracked must be an integer where momentum is None .* got None",
    ),
    ({"num_batches_tracked": -1}, ValueError, "num_batches_tracked must be 0 or more, got -1"),
    (
        {"num_batches_tracked": 1.0},
        TypeError,
        "num_batches_tracked must be an integer, got 1.0 of type float",
    ),
]
GRAD_OUTPUT = [
    (
        {"grad_output": np.ones((3, 4))},
        ValueError,
        r"grad_output must have shape \(4, 3\), .* got shape \(3, 4\)",
    ),
    ({"grad_output": np.ones(3)}, ValueError, r"grad_output must have shape \(4, 3\), .* got shape \(3,\)"),
    ({"grad_output": np.ones((4, 3), int)}, TypeError, "grad_output must be .* floating .* got dtype int64"),
]

TABLE = [
    (function, *row)
    for function, rows in {
        layer: [*ROWS, ({"eps": None}, TypeError, "eps must be a real number, got None")],
        layer_backward: ROWS + GRAD_OUTPUT,
        rms: ROWS + RMS,
        rms_backward: ROWS + RMS + GRAD_OUTPUT,
        batch: BATCH + TRACKING,
        batch_backward: BATCH + GRAD_OUTPUT,
    }.items()
    for row in rows
]


@pytest.mark.parametrize(("function", "changed", "error", "message"), TABLE)
def test_mistakes(function, changed, error, message):
    with pytest.raises(error) as caught:
        function(**changed)
    assert type(caught.value) is error
    assert re.match(message, str(caught.value))


@pytest.mark.parametrize("function", [layer, layer_backward, rms, rms_backward, batch, batch_backward])
def test_without_the_mistake_there_is_no_error(function):
    function()
    function(eps=0, weight=np.ones(3, np.float32), bias=[0.0, 0.0, 0.0])
