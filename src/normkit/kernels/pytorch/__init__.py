"""The operators in PyTorch's own operators: for every device that has no kernel of ours.

Each function stands beside the schema it serves (`normkit.ops`) and returns the same results as
the kernels do, saved statistics included; only slower.
"""

from normkit.kernels.pytorch.batch_norm import (
    batch_norm,
    batch_norm_bwd,
    batch_norm_fixed_fwd,
    batch_norm_formula,
    batch_norm_step,
    batch_norm_train_formula,
    batch_norm_train_fwd,
    batch_norm_update,
    batch_norm_update_formula,
    check_channels,
    check_update,
    is_channels_last,
)
from normkit.kernels.pytorch.common import accumulation_dtype
from normkit.kernels.pytorch.row_norm import (
    check_rows,
    layer_norm,
    rms_norm,
    row_norm_bwd,
    row_norm_formula,
    row_norm_fwd,
)

__all__ = [
    "accumulation_dtype",
    "batch_norm",
    "batch_norm_bwd",
    "batch_norm_fixed_fwd",
    "batch_norm_formula",
    "batch_norm_step",
    "batch_norm_train_formula",
    "batch_norm_train_fwd",
    "batch_norm_update",
    "batch_norm_update_formula",
    "check_channels",
    "check_rows",
    "check_update",
    "is_channels_last",
    "layer_norm",
    "rms_norm",
    "row_norm_bwd",
    "row_norm_formula",
    "row_norm_fwd",
]
