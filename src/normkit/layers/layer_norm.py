"""The LayerNorm layer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Proxy

from normkit import functional
from normkit.layers._leaf import as_leaf, is_part
from normkit.layers._own import parameters_of


class LayerNorm(torch.nn.LayerNorm):
    r"""Layer normalization, a drop-in `torch.nn.LayerNorm`.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, statistics over the trailing
    ``normalized_shape`` of each sample; see `normkit.functional.layer_norm` for shapes and errors.

    Source: Ba, Kiros & Hinton (2016), https://arxiv.org/abs/1607.06450

    >>> import torch, normkit as nk
    >>> nk.LayerNorm(64)(torch.randn(16, 64)).shape
    torch.Size([16, 64])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``input``, (*, *normalized_shape)."""
        if isinstance(input, Proxy) and is_part(input.tracer, self):
            return as_leaf(input, self)
        weight, bias = parameters_of(self)
        return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)
