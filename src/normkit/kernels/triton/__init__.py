"""The operators as Triton kernels. Imported when the first GPU tensor arrives."""

from collections.abc import Callable
from typing import Any

from normkit.kernels.triton import batch_norm, row_norm

__all__ = ["OPERATORS"]

OPERATORS: dict[str, Callable[..., Any]] = {
    "layer_norm": row_norm.layer_norm,
    "rms_norm": row_norm.rms_norm,
    "row_norm_fwd": row_norm.row_norm_fwd,
    "row_norm_bwd": row_norm.row_norm_bwd,
    "batch_norm": batch_norm.batch_norm,
    "batch_norm_step": batch_norm.batch_norm_step,
    "batch_norm_train_fwd": batch_norm.batch_norm_train_fwd,
    "batch_norm_fixed_fwd": batch_norm.batch_norm_fixed_fwd,
    "batch_norm_bwd": batch_norm.batch_norm_bwd,
    "batch_norm_update": batch_norm.batch_norm_update,
    # What the compiler calls them.
    "row_norm": row_norm.row_norm_fwd,
    "batch_norm_train": batch_norm.batch_norm_train_fwd,
    "batch_norm_fixed": batch_norm.batch_norm_fixed_fwd,
}
