"""The kinds of data that norms get wrong, and the operands of a call made of them."""

import zlib

import numpy as np
import torch

# Around the vector widths: 4 to 16 lanes, four vectors at a time, 4096 elements per partial sum.
WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 1000, 1025]
LONG_WIDTHS = [4096, 4097, 10000]

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def name_of(value):
    """A test's id for a dtype; None leaves it to pytest."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else None


def rng(*seed):
    """A generator that is another one for every list of words and numbers."""
    return np.random.default_rng(zlib.crc32(repr(seed).encode()))


def _spike(r, groups, n):
    x = r.standard_normal((groups, n)) * 0.1
    x[np.arange(groups), r.integers(0, n, groups)] = 300.0
    return x


# Each gives (groups, n): n values that share statistics, in every group.
KINDS = {
    "normal": lambda r, groups, n: r.standard_normal((groups, n)),
    "offset": lambda r, groups, n: r.standard_normal((groups, n)) + 1e4,
    "uniform": lambda r, groups, n: r.random((groups, n)),
    "heavy-tailed": lambda r, groups, n: np.clip(r.standard_t(1.5, (groups, n)), -3e4, 3e4),
    "spike": _spike,
    "constant": lambda r, groups, n: np.repeat(r.standard_normal((groups, 1)) * 3, n, 1),
}


def tensor(array, dtype):
    """The values of a NumPy array, rounded to dtype."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)


def parameters(r, shape, dtype):
    """A weight and a bias which leave no output small by cancellation alone."""
    weight = r.uniform(0.75, 1.5, shape) * r.choice([-1.0, 1.0], shape)
    return tensor(weight, dtype), tensor(r.uniform(-0.0625, 0.0625, shape), dtype)


def normal(shape, dtype=torch.float32, seed=0):
    """A standard normal tensor."""
    return tensor(rng("normal", tuple(shape), seed).standard_normal(shape), dtype)
