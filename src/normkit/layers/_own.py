"""A layer's own tensors, read where they lie: a tenth of what `layer.weight` takes, and of a small call.

Where one lies elsewhere (parametrized, pruned, replicated), it is read as the attribute that it then is.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def parameters_of(layer: Any) -> tuple[Tensor | None, Tensor | None]:
    """The weight and the bias."""
    own = layer._parameters
    try:
        return own["weight"], own["bias"]
    except KeyError:
        return layer.weight, layer.bias


def statistics_of(layer: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The running mean, the running variance and the number of batches they were taken of."""
    own = layer._buffers
    try:
        return own["running_mean"], own["running_var"], own["num_batches_tracked"]
    except KeyError:
        return layer.running_mean, layer.running_var, layer.num_batches_tracked
