"""One training run: a pure function of its configuration."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normkit.study.data import TRAIN_SIZE, Subset, digits
from normkit.study.models import build
from normkit.study.results import Checkpoint, Run, RunConfig

__all__ = ["CHECKPOINT_EVERY", "train"]

CHECKPOINT_EVERY = 500  # images
ONEDNN_BATCH = 32  # below it, oneDNN's set-up per call costs more than it saves on 8x8 images


def train(config: RunConfig) -> Run:
    """Train the network of `config` with Adam on cross-entropy and measure it.

    The seed fixes the split of the data, the first weights and the order of the images; runs that
    differ in the norm alone share all three. Inference-mode figures come from `model.eval()`.

    A BatchNorm that refuses a batch of one value per channel is a result, kept in `Run.error`; every
    other error is raised.
    """
    data = digits(config.seed)
    torch.manual_seed(config.seed)
    model = build(config.architecture, config.norm)
    try:
        with _onednn(config.batch_size >= ONEDNN_BATCH):
            curve = tuple(_fit(model, config, data.train, data.test))
    except ValueError as error:
        if not _is_refusal_of_one_value(error, model, config):
            raise
        return Run(config, error=str(error))
    train_logits, test_logits = _logits(model, data.train), _logits(model, data.test)
    batch_logits, inference_logits = _both_modes(model, data.test, config.batch_size)
    shift = (batch_logits - inference_logits).abs().mean() / inference_logits.std()
    return Run(
        config,
        curve=curve,
        train_accuracy=_accuracy(train_logits, data.train),
        train_loss=_loss(train_logits, data.train),
        validation_accuracy=_accuracy(_logits(model, data.validation), data.validation),
        test_accuracy=_accuracy(test_logits, data.test),
        test_loss=_loss(test_logits, data.test),
        batch_mode_accuracy=_accuracy(batch_logits, data.test),
        batch_mode_shift=_finite(shift),
    )


def _fit(model: nn.Module, config: RunConfig, train_set: Subset, test_set: Subset) -> Iterator[Checkpoint]:
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    model.train()
    losses: list[Tensor] = []
    batches = list(_batches(config))
    seen, due, last = 0, CHECKPOINT_EVERY, len(batches) * config.batch_size
    for chosen in batches:
        loss = F.cross_entropy(model(train_set.images[chosen]), train_set.labels[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.detach())
        seen += len(chosen)
        if seen >= due or seen == last:
            mean_loss = _finite(torch.stack(losses).mean())
            yield Checkpoint(seen, mean_loss, _accuracy(_logits(model, test_set), test_set))
            losses.clear()
            due += CHECKPOINT_EVERY


def _batches(config: RunConfig) -> Iterator[Tensor]:
    # One long stream of shuffled epochs cut into equal batches: every batch size sees the same images
    # in the same order, and no epoch ends on a smaller batch.
    generator = torch.Generator().manual_seed(config.seed)
    epochs = -(-config.samples // TRAIN_SIZE)
    stream = torch.cat([torch.randperm(TRAIN_SIZE, generator=generator) for _ in range(epochs)])
    steps = config.samples // config.batch_size
    yield from torch.split(stream[: steps * config.batch_size], config.batch_size)


@contextmanager
def _onednn(enabled: bool) -> Iterator[None]:
    # Not `torch.backends.mkldnn.flags`: that sets other flags too, with a warning for each call.
    flags: Any = torch.backends.mkldnn
    before = flags.enabled
    flags.enabled = enabled
    try:
        yield
    finally:
        flags.enabled = before


def _is_refusal_of_one_value(error: ValueError, model: nn.Module, config: RunConfig) -> bool:
    has_batch_norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    return has_batch_norm and config.batch_size == 1 and "per channel" in str(error)


@torch.no_grad()
def _logits(model: nn.Module, subset: Subset) -> Tensor:
    was_training = model.training
    model.eval()
    logits: Tensor = model(subset.images)
    model.train(was_training)
    return logits


@torch.no_grad()
def _both_modes(model: nn.Module, subset: Subset, batch_size: int) -> tuple[Tensor, Tensor]:
    # Both modes on the same batches: a matrix product may round differently at another batch size. On
    # a copy: running statistics must not learn from the test images.
    training, inference = copy.deepcopy(model).train(), copy.deepcopy(model).eval()
    batches = torch.split(subset.images, batch_size)
    return torch.cat([training(batch) for batch in batches]), torch.cat(
        [inference(batch) for batch in batches]
    )


def _accuracy(logits: Tensor, subset: Subset) -> float:
    return float((logits.argmax(dim=1) == subset.labels).float().mean())


def _loss(logits: Tensor, subset: Subset) -> float:
    return _finite(F.cross_entropy(logits, subset.labels))


def _finite(value: Tensor) -> float:
    # JSON knows neither inf nor NaN; a diverged run shows as this loss and as accuracy by chance.
    return float(torch.nan_to_num(value, nan=1e9, posinf=1e9))
