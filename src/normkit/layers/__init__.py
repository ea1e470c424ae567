"""The layers: `torch.nn`'s classes with our forward."""

from normkit.layers.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normkit.layers.layer_norm import LayerNorm
from normkit.layers.rms_norm import RMSNorm

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "RMSNorm"]
