"""Batch, Layer and RMS normalization for PyTorch: fast, drop-in, and right for every finite input."""

from normkit import functional, reference
from normkit.kernels import Backend, backends
from normkit.layers import BatchNorm1d, BatchNorm2d, BatchNorm3d, LayerNorm, RMSNorm
from normkit.recipe import BATCH_NORM, LAYER_NORM, RMS_NORM, Recipe

__version__ = "0.1.0"

__all__ = [
    "BATCH_NORM",
    "LAYER_NORM",
    "RMS_NORM",
    "Backend",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "LayerNorm",
    "RMSNorm",
    "Recipe",
    "backends",
    "functional",
    "reference",
]
