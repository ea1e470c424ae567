"""The operators as Triton kernels. Imported when the first GPU tensor arrives."""

from normkit.kernels.triton import launch as launch
from normkit.kernels.triton.batch_norm import (
    batch_norm,
    batch_norm_bwd,
    batch_norm_fixed_fwd,
    batch_norm_step,
    batch_norm_train_fwd,
    batch_norm_update,
)
from normkit.kernels.triton.row_norm import layer_norm, rms_norm, row_norm_bwd, row_norm_fwd

# What the compiler calls them.
row_norm, batch_norm_train, batch_norm_fixed = row_norm_fwd, batch_norm_train_fwd, batch_norm_fixed_fwd

__all__ = [
    "batch_norm",
    "batch_norm_bwd",
    "batch_norm_fixed",
    "batch_norm_fixed_fwd",
    "batch_norm_step",
    "batch_norm_train",
    "batch_norm_train_fwd",
    "batch_norm_update",
    "layer_norm",
    "rms_norm",
    "row_norm",
    "row_norm_bwd",
    "row_norm_fwd",
]
