"""The cases which several tests of the reference run over."""

import itertools

import numpy as np

AFFINE = [(False, False), (True, False), (False, True), (True, True)]  # with weight, with bias

ROW_SHAPES = [  # x, normalized_shape
    ((4, 7), (7,)),
    ((6,), (6,)),
    ((2, 3, 5), (5,)),
    ((2, 3, 5), (3, 5)),
    ((2, 3, 5), (2, 3, 5)),
    ((3, 2), (2,)),
]
BATCH_SHAPES = [(5, 3), (4, 3, 6), (2, 3, 2, 4), (2, 2, 3, 1, 2), (2, 3)]

# One eps as large as the variance, so that an eps in the wrong place is seen; the other not so small
# that two values which share statistics become +-1 whatever they are, and dx nothing but rounding.
EPS = [1e-2, 0.7]
RMS_OPTIONS = [
    {"eps": 0.7, "eps_mode": eps_mode, "gain_offset": gain_offset}
    for eps_mode, gain_offset in itertools.product(["inside", "outside"], [0.0, 1.0])
]


def operands(seed, x_shape, parameter_shape, affine=(True, True), dtype=np.float64):
    """Random grad_output, x, weight and bias (or None)."""
    rng = np.random.default_rng(seed)
    shapes = [x_shape, x_shape, parameter_shape, parameter_shape]
    wanted = [True, True, *affine]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    arrays[1] = arrays[1] * 2 + 1
    return [array if want else None for array, want in zip(arrays, wanted, strict=True)]


def running_statistics(seed, channels, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(channels).astype(dtype), rng.uniform(0.5, 2, channels).astype(dtype)
