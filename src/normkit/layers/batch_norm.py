"""The BatchNorm layers, for inputs of 2 to 5 dimensions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.nn.modules.batchnorm import _BatchNorm

from normkit import functional
from normkit.layers._leaf import as_leaf, is_part
from normkit.layers._own import parameters_of, statistics_of


class _Forward(_BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``input``, (N, C, *); in training also update the running statistics."""
        if isinstance(input, Proxy) and is_part(input.tracer, self):
            return as_leaf(input, self)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        weight, bias = parameters_of(self)
        mean, var, batches = statistics_of(self)
        tracking = self.training and self.track_running_stats
        # With no statistics to use, a batch's own serve in inference too.
        training = self.training or (mean is None and var is None)
        use_running = tracking or not training
        return functional.tracked_batch_norm(
            input,
            mean if use_running else None,
            var if use_running else None,
            batches if tracking else None,
            weight,
            bias,
            training,
            self.momentum,
            self.eps,
        )


class BatchNorm1d(_Forward, torch.nn.BatchNorm1d):
    r"""Batch normalization of (N, C) or (N, C, L), a drop-in `torch.nn.BatchNorm1d`.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias`` per channel; see
    `normkit.functional.batch_norm` for statistics, shapes and errors. A momentum of None averages
    all batches seen. A batch that `torch.utils.checkpoint` repeats in the backward pass is counted once.

    Source: Ioffe & Szegedy (2015), https://arxiv.org/abs/1502.03167

    >>> import torch, normkit as nk
    >>> nk.BatchNorm1d(64)(torch.randn(16, 64)).shape
    torch.Size([16, 64])
    """


class BatchNorm2d(_Forward, torch.nn.BatchNorm2d):
    r"""Batch normalization of (N, C, H, W), a drop-in `torch.nn.BatchNorm2d`; see `BatchNorm1d`.

    >>> import torch, normkit as nk
    >>> nk.BatchNorm2d(64)(torch.randn(16, 64, 32, 32)).shape
    torch.Size([16, 64, 32, 32])
    """


class BatchNorm3d(_Forward, torch.nn.BatchNorm3d):
    r"""Batch normalization of (N, C, D, H, W), a drop-in `torch.nn.BatchNorm3d`; see `BatchNorm1d`.

    >>> import torch, normkit as nk
    >>> nk.BatchNorm3d(4)(torch.randn(2, 4, 3, 3, 3)).shape
    torch.Size([2, 4, 3, 3, 3])
    """
