"""How near is near: the one table of tolerances of the reference's tests, and the comparison."""

import numpy as np

LONG_EPS = float(np.finfo(np.longdouble).eps)  # 1e-19 on x86, 2e-16 where longdouble is float64

# A central difference with step h is off by h^2/6 times the third derivative (which 1/root^3 makes
# large) and by LONG_EPS/h from rounding. The cube root balances the two.
STEP = LONG_EPS ** (1 / 3)
FINITE_DIFFERENCE = 1e4 * STEP**2  # 2e-9 on x86

# Two float64 computations of the same formula: eps = 2e-16, rows and batches of at most 16,384
# elements summed in any order, and a few roundings after them.
FLOAT64 = 1e-12

# A float64 result against the same computed in longdouble: roundings of the last steps alone.
ROUNDING = 2e-15


def assert_close(actual, expected, tolerance):
    """Compare shapes, and values relative to the largest expected one."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype.kind == "f"
    if expected.size:
        error = np.max(np.abs(actual.astype(np.longdouble) - expected))
        assert error <= tolerance * np.max(np.abs(expected))  # a nan fails too


def assert_gradients_close(actual, expected, tolerance):
    """Compare three gradients, any of which may be None, but then in both."""
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_close(ours, theirs, tolerance)
