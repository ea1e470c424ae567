"""The oracle: every norm in NumPy, float64 inside, forward and backward, slow and obvious.

It knows NumPy and `normkit.recipe` alone, so that what is checked against it shares no code with it.
"""

from normkit.reference.batch import BatchNormResult, batch_norm, batch_norm_backward
from normkit.reference.core import Gradients
from normkit.reference.layer import layer_norm, layer_norm_backward
from normkit.reference.rms import rms_norm, rms_norm_backward

__all__ = [
    "BatchNormResult",
    "Gradients",
    "batch_norm",
    "batch_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
]
