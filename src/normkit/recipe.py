"""The one formula behind every norm here.

    x_hat = (x - mean) / root          mean is 0 where the norm is not centred
    root  = sqrt(var + eps)            eps inside the root
          | sqrt(var) + eps            eps outside the root
    y     = (gain_offset + gamma) * x_hat + beta

A `Recipe` says which elements share ``mean`` and ``var`` and which variant of each line holds.
The reference computes it, a layer is one with parameters, the study compares several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EpsMode = Literal["inside", "outside"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which elements share statistics, and what is done with them.

    over: ``"features"``: the trailing axes of one sample share statistics, and gain and bias run
        along them (LayerNorm, RMSNorm). ``"batch"``: one channel's elements in all samples and
        positions share statistics, and gain and bias are per channel (BatchNorm).
    centred: whether the mean is subtracted; if not, ``var`` is the mean square.
    eps: keeps the division finite; ``None`` means the machine epsilon of the input's dtype.
    eps_mode: whether eps is added to the variance (inside the root) or to the root (outside).
    gain_offset: added to the weight, so that a gain stored as ``w`` and used as ``1 + w`` fits.
    """

    over: Literal["batch", "features"]
    centred: bool = True
    eps: float | None = 1e-5
    eps_mode: EpsMode = "inside"
    gain_offset: float = 0.0


BATCH_NORM = Recipe(over="batch")
LAYER_NORM = Recipe(over="features")
RMS_NORM = Recipe(over="features", centred=False, eps=None)
