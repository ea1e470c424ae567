"""The tables of a user's mistakes: the arguments changed, the error, its message."""

import numpy as np
import torch

import normkit as nk

X = torch.linspace(-2, 3, 24).reshape(2, 4, 3)
NAN = float("nan")


def layer_norm(**changed):
    return nk.functional.layer_norm(**{"input": X, "normalized_shape": (3,), **changed})


def rms_norm(**changed):
    return nk.functional.rms_norm(**{"input": X, "normalized_shape": (3,), **changed})


def batch_norm(**changed):
    channels = {"running_mean": torch.zeros(4), "running_var": torch.ones(4)}
    return nk.functional.batch_norm(**{"input": X, **channels, "training": True, **changed})


FLOATING = "float64, float32, bfloat16 or float16"

INPUT = [
    ({"input": X.int()}, TypeError, f"input must be {FLOATING}, got int32"),
    ({"input": X.bool()}, TypeError, f"input must be {FLOATING}, got bool"),
    ({"input": X.to(torch.complex64)}, TypeError, f"input must be {FLOATING}, got complex64"),
    ({"input": X.to(torch.float8_e4m3fn)}, TypeError, f"input must be {FLOATING}, got float8_e4m3fn"),
    ({"input": X.tolist()}, TypeError, "input must be a torch.Tensor, got list"),
    ({"input": X.numpy()}, TypeError, "input must be a torch.Tensor, got ndarray"),
    ({"input": None}, TypeError, "input must be a torch.Tensor, got NoneType"),
    ({"input": 1.5}, TypeError, "input must be a torch.Tensor, got float"),
    ({"input": X.to_sparse()}, TypeError, "input must be a dense tensor, got layout torch.sparse_coo"),
    ({"eps": -1e-5}, ValueError, "eps must be a number of at least 0, got -1e-05"),
    ({"eps": NAN}, ValueError, "eps must be a number of at least 0, got nan"),
    ({"eps": "small"}, TypeError, "eps must be a number, got str"),
    ({"eps": [1e-5]}, TypeError, "eps must be a number, got list"),
    ({"eps": 1j}, TypeError, "eps must be a number, got complex"),
]


def parameter(name, n, shape_of):
    """The mistakes there are in a weight, a bias or a running statistic of n elements."""
    return [
        ({name: torch.ones(n + 1)}, ValueError, rf"{name} must have .*{shape_of}.*, got \({n + 1},\)"),
        ({name: torch.ones(n - 1)}, ValueError, rf"{name} must have .*{shape_of}.*, got \({n - 1},\)"),
        ({name: torch.ones(n, 1)}, ValueError, rf"{name} must have .*{shape_of}.*, got \({n}, 1\)"),
        ({name: torch.ones(1, n)}, ValueError, rf"{name} must have .*{shape_of}.*, got \(1, {n}\)"),
        ({name: torch.tensor(1.0)}, ValueError, rf"{name} must have .*{shape_of}.*, got \(\)"),
        ({name: torch.ones(0)}, ValueError, rf"{name} must have .*{shape_of}.*, got \(0,\)"),
        ({name: torch.ones(n).int()}, TypeError, f"{name} must be {FLOATING}, got int32"),
        ({name: torch.ones(n).bool()}, TypeError, f"{name} must be {FLOATING}, got bool"),
        ({name: torch.ones(n) * 1j}, TypeError, f"{name} must be {FLOATING}, got complex64"),
        ({name: [1.0] * n}, TypeError, f"{name} must be a torch.Tensor, got list"),
        ({name: np.ones(n)}, TypeError, f"{name} must be a torch.Tensor, got ndarray"),
        ({name: 1.0}, TypeError, f"{name} must be a torch.Tensor, got float"),
        ({name: torch.ones(n).to_sparse()}, TypeError, f"{name} must be a dense tensor, got layout"),
        (
            {name: torch.ones(n, device="meta")},
            ValueError,
            f"{name} must be on the input's device cpu, got meta",
        ),
    ]


ROWS = [
    *INPUT,
    *parameter("weight", 3, "normalized_shape"),
    *parameter("bias", 3, "normalized_shape"),
    ({"normalized_shape": (4,)}, ValueError, r"normalized_shape must .* got \(4,\) for .* \(2, 4, 3\)"),
    ({"normalized_shape": (2, 3)}, ValueError, r"normalized_shape must .* got \(2, 3\) for"),
    ({"normalized_shape": (1, 2, 4, 3)}, ValueError, r"normalized_shape must .* got \(1, 2, 4, 3\) for"),
    ({"normalized_shape": ()}, ValueError, r"normalized_shape must .* got \(\) for"),
    ({"normalized_shape": (-1,)}, ValueError, r"normalized_shape must .* got \(-1,\) for"),
    ({"normalized_shape": 3}, TypeError, "normalized_shape must be a sequence of ints, got 3"),
    ({"normalized_shape": 3.0}, TypeError, "normalized_shape must be a sequence of ints, got 3.0"),
    ({"normalized_shape": (3.5,)}, TypeError, r"normalized_shape must be a sequence of ints, got \(3.5,\)"),
    ({"normalized_shape": "3"}, TypeError, "normalized_shape must be a sequence of ints, got '3'"),
    ({"normalized_shape": None}, TypeError, "normalized_shape must be a sequence of ints, got None"),
    ({"normalized_shape": [None]}, TypeError, r"normalized_shape must be a sequence of ints, got \[None\]"),
    ({"input": torch.tensor(1.0)}, ValueError, r"normalized_shape must .* got \(3,\) for .* shape \(\)"),
    ({"input": torch.ones(3, 2)}, ValueError, r"normalized_shape must .* got \(3,\) for .* \(3, 2\)"),
]
LAYER = [*ROWS, ({"eps": None}, TypeError, "eps must be a number, got NoneType")]
RMS = [
    *ROWS,
    ({"eps_mode": "around"}, ValueError, "eps_mode must be 'inside' or 'outside', got 'around'"),
    ({"eps_mode": None}, ValueError, "eps_mode must be 'inside' or 'outside', got None"),
    ({"eps_mode": 1}, ValueError, "eps_mode must be 'inside' or 'outside', got 1"),
    ({"gain_offset": "one"}, TypeError, "gain_offset must be a number, got str"),
    ({"gain_offset": None}, TypeError, "gain_offset must be a number, got NoneType"),
    ({"gain_offset": torch.ones(3)}, TypeError, "gain_offset must be a number, got Tensor"),
]

BATCH = [
    *INPUT,
    *(row for name in ("weight", "bias", "running_mean", "running_var") for row in parameter(name, 4, "C")),
    ({"eps": None}, TypeError, "eps must be a number, got NoneType"),
    (
        {"input": torch.tensor(1.0)},
        ValueError,
        r"input must be \(N, C, \*\), at least 2 dimensions, got shape \(\)",
    ),
    (
        {"input": torch.ones(4)},
        ValueError,
        r"input must be \(N, C, \*\), at least 2 dimensions, got shape \(4,\)",
    ),
    ({"input": torch.ones(2, 3, 4)}, ValueError, r"(running_mean|input) must .* \(3,\), got \(4,\)"),
]
TRAINING = [
    ({"input": torch.ones(1, 4)}, ValueError, r"input must have more than one value per channel .* \(1, 4\)"),
    ({"input": torch.ones(1, 4, 1, 1)}, ValueError, "input must have more than one value per channel"),
    (
        {"input": torch.ones(1, 4), "running_mean": None, "running_var": None},
        ValueError,
        "input must have more than one value per channel",
    ),
    ({"momentum": None}, ValueError, "momentum must be a number .* got None"),
    ({"momentum": "fast"}, TypeError, "momentum must be a number, got str"),
    ({"momentum": [0.1]}, TypeError, "momentum must be a number, got list"),
]
INFERENCE = [
    ({"running_mean": None}, ValueError, "running_mean.* must .* inference"),
    ({"running_var": None}, ValueError, "running_(mean|var).* must .* inference"),
    ({"running_mean": None, "running_var": None}, ValueError, "running_mean.* must .* inference"),
]
BATCH_ROWS = [
    *(({**changed, "training": True}, *rest) for changed, *rest in [*BATCH, *TRAINING]),
    *(({**changed, "training": False}, *rest) for changed, *rest in [*BATCH, *INFERENCE]),
]
TABLE = [
    *((layer_norm, *row) for row in LAYER),
    *((rms_norm, *row) for row in RMS),
    *((batch_norm, *row) for row in BATCH_ROWS),
]


def shown(value):
    """A short id for a row of the table."""
    if callable(value) and not isinstance(value, type):
        return value.__name__
    if isinstance(value, dict):
        return ",".join(f"{k}={_brief(v)}" for k, v in value.items())
    return getattr(value, "__name__", "")


def _brief(value):
    if isinstance(value, torch.Tensor):
        return (
            f"{value.device}-{str(value.dtype)[6:]}{list(value.shape)}{'-sparse' if value.is_sparse else ''}"
        )
    return type(value).__name__ if isinstance(value, np.ndarray) or value is X.tolist() else repr(value)[:24]
