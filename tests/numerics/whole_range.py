"""Data over the whole range of a dtype, and how many results of it are right.

Right is what the NumPy reference gives in extended precision, whose range no square of ours leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tests.data import tensor
from tests.oracle import BatchNorm, Operands, RowNorm, accumulated, allowed, errors, run, scales

EXTENDED = np.longdouble
# Where the C library has nothing longer than a double, there is no oracle for float64.
EXTENDED_IS_LONGER = np.finfo(EXTENDED).maxexp > np.finfo(np.float64).maxexp


def exponents(dtype):
    """Those of the smallest and the largest numbers of dtype."""
    info = torch.finfo(dtype)
    return tuple(int(np.frexp(v)[1]) - 1 for v in (info.smallest_normal * info.eps, info.max))


def _scaled(r, shape, exponent):
    return np.ldexp(r.standard_normal(shape).astype(EXTENDED), exponent)


def _any(r, shape, dtype):
    """Exponents from the smallest number's to the largest's."""
    low, high = exponents(dtype)
    return r.integers(low, high + 1, shape)


def _one_scale(r, groups, n, dtype):
    return _scaled(r, (groups, n), _any(r, (groups, 1), dtype))


def _mixed_scales(r, groups, n, dtype):
    return _scaled(r, (groups, n), _any(r, (groups, 1), dtype) + r.integers(-30, 31, (groups, n)))


def _every_scale(r, groups, n, dtype):
    return _scaled(r, (groups, n), _any(r, (groups, n), dtype))


def _spike(r, groups, n, dtype):
    x = np.zeros((groups, n), EXTENDED)
    place = r.integers(0, n, groups)
    x[np.arange(groups), place] = _scaled(r, groups, _any(r, groups, dtype))
    return x


def _equal(r, groups, n, dtype):
    return np.repeat(_one_scale(r, groups, 1, dtype), n, 1)


def _last_places(r, groups, n, dtype):
    """A number and its neighbours: all of the variance is in the last places."""
    base = _one_scale(r, groups, 1, dtype)
    step = np.ldexp(EXTENDED(torch.finfo(dtype).eps), np.frexp(base)[1] - 1)
    return base + step * r.integers(-3, 4, (groups, n))


def _offset(r, groups, n, dtype):
    return r.standard_normal((groups, n)).astype(EXTENDED) + (1e3 if dtype == torch.float16 else 1e8)


KINDS = {
    "one scale": _one_scale,
    "scales 2^-30 to 2^30 apart": _mixed_scales,
    "every scale": _every_scale,
    "one spike among zeros": _spike,
    "equal": _equal,
    "equal but for last places": _last_places,
    "offset by 1e8 (float16: 1e3)": _offset,
}


def epsilons(dtype):
    """None, the usual one, one that only the smallest data does not dwarf, and one that dwarfs most."""
    low, high = exponents(dtype)
    return 0.0, 1e-5, float(np.ldexp(1.0, max(2 * low + 20, -1000))), float(np.ldexp(1.0, high))


NORMS = {
    "LayerNorm": lambda eps: RowNorm("layer_norm", options={"eps": eps}),
    "RMSNorm": lambda eps: RowNorm("rms_norm", options={"eps": eps}),
    "RMSNorm, eps outside": lambda eps: RowNorm("rms_norm", options={"eps": eps, "eps_mode": "outside"}),
    "BatchNorm, planar": lambda eps: BatchNorm(options={"eps": eps}),
    "BatchNorm, interleaved": lambda eps: BatchNorm(options={"eps": eps}),
}


def operands(r, name, kind, groups, n, dtype):
    """Groups of this kind; half of the upstream gradients are of any scale a product may have."""
    low, high = exponents(dtype)
    largest = torch.finfo(dtype).max
    x = np.clip(KINDS[kind](r, groups, n, dtype), -largest, largest)
    any_scale = r.integers(0, 2, (groups, 1)) * r.integers(low // 2, high // 2 + 1, (groups, 1))
    grad = np.clip(_scaled(r, (groups, n), any_scale), -largest, largest)
    weight, bias = r.standard_normal((2, groups if name.startswith("BatchNorm") else n))
    if name == "BatchNorm, planar":  # (2, C, n / 2)
        x, grad = (np.moveaxis(a.reshape(groups, 2, -1), 0, 1) for a in (x, grad))
    elif name == "BatchNorm, interleaved":
        x, grad = x.T, grad.T
    return Operands(*(tensor(a.astype(np.float64), dtype) for a in (x, weight, bias, grad)))


@dataclass
class Verdict:
    """Groups that were looked at, and those of which a result is not right.

    A parameter's gradient counts as one more for each of its elements that is not.
    """

    groups: int = 0
    not_finite: int = 0  # though representable
    wrong: int = 0  # not finite, or further from right than allowed
    output: float = 0.0  # the largest distance from right, in units, of what is finite
    gradient: float = 0.0

    def __iadd__(self, other):
        self.groups += other.groups
        self.not_finite += other.not_finite
        self.wrong += other.wrong
        self.output = max(self.output, other.output)
        self.gradient = max(self.gradient, other.gradient)
        return self


def limit(name, dtype):
    """How far a result may be from right, in units."""
    return 16.0 if dtype == torch.float64 else allowed(name, dtype, accumulated(dtype))


def judge(function, norm, o: Operands) -> Verdict:
    """Every result of `function`, where the formula has a value and its terms are representable."""
    dtype = o.x.dtype
    with np.errstate(all="ignore"):
        results = run(function, o)
        off = errors(norm, o, results, EXTENDED)
        size = scales(norm, o, norm.expected(o, EXTENDED), EXTENDED)
        x_hat, rstd, _ = norm.statistics(o, EXTENDED)
    has_value = np.isfinite(rstd[:, 0]) & (rstd[:, 0] > 0) & np.isfinite(x_hat).all(1)
    verdict = Verdict(groups=int(has_value.sum()))
    not_finite, wrong = np.zeros((2, len(rstd)), bool)
    for name, distance in off.items():
        by_group = distance.ndim == 2
        # A rounding of a term beyond the range may be, too. nan is of a row that has no value.
        held = getattr(size, name).reshape(len(distance)) < torch.finfo(dtype).max / 2
        if by_group:
            held &= has_value
            distance = distance.max(1)
        bad = held & (distance > limit(name, dtype)), held & ~np.isfinite(distance)
        if by_group:
            wrong, not_finite = wrong | bad[0], not_finite | bad[1]
        else:
            verdict.wrong, verdict.not_finite = (
                n + int(b.sum()) for n, b in zip((verdict.wrong, verdict.not_finite), bad, strict=True)
            )
        worst = float(np.max(distance, initial=0, where=held & np.isfinite(distance)))
        kind = "output" if name == "output" else "gradient"
        setattr(verdict, kind, max(getattr(verdict, kind), worst))
    verdict.wrong += int(wrong.sum())
    verdict.not_finite += int(not_finite.sum())
    return verdict
