"""Whether a contender's result is right, before its time counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from normkit.bench.cases import Case
from normkit.bench.operands import Results, result_names

__all__ = ["WORST", "tolerance", "worst_error"]

WORST = 1e9  # JSON has no infinity

# How far a result may be from the exact one, in units of eps times the largest exact value. These are
# bounds that an honest implementation in its usual precision keeps; a wrong formula misses them by far.
#   own: roundings to the data's dtype. An output takes five of half a unit each (difference, rstd, product,
#       gain, bias), which count double below a power of two; a gradient takes two such outputs' worth and
#       the rounding of three terms that cancel. A running statistic is a product, a sum and a rounding.
#   statistics: mean and variance are sums of n terms in the accumulation dtype, float32 or wider. Added in
#       one chain they are off by a random walk of sqrt(n) steps.
#   summed: a weight's gradient is a sum of m terms, and some contenders add in the dtype of the data: a
#       random walk of sqrt(m) steps of that dtype.
_OWN = {
    "output": 5.0,
    "grad_input": 12.0,
    "grad_weight": 12.0,
    "grad_bias": 12.0,
    "running_mean": 2.0,
    "running_var": 2.0,
}


def tolerance(case: Case, name: str) -> float:
    """The largest error of result `name` that passes, over the largest exact value."""
    dtype = getattr(torch, case.dtype)
    eps = torch.finfo(dtype).eps
    accumulated = min(eps, torch.finfo(torch.float32).eps)
    summed = math.sqrt(case.summed) * eps if name in ("grad_weight", "grad_bias") else 0.0
    return _OWN[name] * eps + math.sqrt(case.sharing) * accumulated + summed


def worst_error(case: Case, got: Results, wanted: Results) -> float:
    """The largest error of any result over what passes; more than 1 is wrong.

    A result that is not a number, is missing or has another shape is wrong by `WORST`.
    """
    return max(_error(case, name, got.get(name), wanted[name]) for name in result_names(case))


def _error(case: Case, name: str, got: Tensor | None, wanted: Tensor) -> float:
    if got is None or got.shape != wanted.shape:
        return WORST
    error = float((got - wanted).abs().max() / (tolerance(case, name) * wanted.abs().max()))
    return WORST if math.isnan(error) else min(error, WORST)
