"""The RMSNorm layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.nn import Parameter

from normkit import functional
from normkit._errors import is_outside
from normkit.layers._leaf import as_leaf, is_part
from normkit.layers._own import parameters_of
from normkit.recipe import EpsMode


class RMSNorm(torch.nn.RMSNorm):
    r"""Root-mean-square normalization, a drop-in `torch.nn.RMSNorm` with the variants in use.

    ``y = (gain_offset + weight) * x_hat + bias`` with ``x_hat = x / sqrt(mean(x^2) + eps)``
    (``eps_mode="inside"``) or ``x / (sqrt(mean(x^2)) + eps)`` (``"outside"``), statistics over the
    trailing ``normalized_shape`` of each sample; see `normkit.functional.rms_norm`.

    Args:
        normalized_shape: the trailing dimensions that share statistics.
        eps: keeps the division finite; None for ``torch.finfo(input.dtype).eps``.
        elementwise_affine: whether there is a weight (and, with ``bias``, a bias).
        device: of the parameters.
        dtype: of the parameters.
        bias: whether there is a bias too, which PyTorch's RMSNorm has not.
        eps_mode: whether eps stands inside or outside the root.
        gain_offset: what the weight is added to; the weight starts at ``1 - gain_offset``, a gain of 1.

    Source: Zhang & Sennrich (2019), https://arxiv.org/abs/1910.07467

    >>> import torch, normkit as nk
    >>> nk.RMSNorm(64, bias=True, gain_offset=1.0)
    RMSNorm((64,), eps=None, elementwise_affine=True, bias=True, gain_offset=1.0)
    """

    bias: Parameter | None
    eps_mode: EpsMode
    gain_offset: float

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = False,
        eps_mode: EpsMode = "inside",
        gain_offset: float = 0.0,
    ) -> None:
        """Make the layer; its parameters give the identity on normalized data."""
        is_outside(eps_mode)
        self.gain_offset = gain_offset  # the base class's constructor sets the weight by it
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        self.eps_mode = eps_mode
        if bias and elementwise_affine:
            self.bias = Parameter(torch.zeros(self.normalized_shape, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Set the gain to 1 and the bias to 0."""
        if self.elementwise_affine:
            torch.nn.init.constant_(self.weight, 1.0 - self.gain_offset)
        bias = getattr(self, "bias", None)  # the base class's constructor calls this before there is one
        if bias is not None:
            torch.nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x``, (*, *normalized_shape)."""
        if isinstance(x, Proxy) and is_part(x.tracer, self):
            return as_leaf(x, self)
        weight, bias = parameters_of(self)
        return functional.rms_norm(
            x,
            self.normalized_shape,
            weight,
            self.eps,
            bias=bias,
            eps_mode=self.eps_mode,
            gain_offset=self.gain_offset,
        )

    def extra_repr(self) -> str:
        """What differs from `torch.nn.RMSNorm` stands behind its own."""
        shown = super().extra_repr()
        if self.bias is not None:
            shown += ", bias=True"
        if self.eps_mode != "inside":
            shown += f", eps_mode={self.eps_mode!r}"
        if self.gain_offset != 0.0:
            shown += f", gain_offset={self.gain_offset}"
        return shown
