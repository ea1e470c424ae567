"""The operators as Triton kernels. Imported when the first GPU tensor arrives."""

from normkit.kernels.triton import launch as launch
from normkit.kernels.triton.row_norm import layer_norm, rms_norm, row_norm_bwd, row_norm_fwd

row_norm = row_norm_fwd

__all__ = ["layer_norm", "rms_norm", "row_norm", "row_norm_bwd", "row_norm_fwd"]
