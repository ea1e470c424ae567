"""Real data: scikit-learn's digits, split and standardised from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor

__all__ = ["CLASSES", "TEST_SIZE", "TRAIN_SIZE", "VALIDATION_SIZE", "Digits", "Subset", "digits"]

CLASSES = 10
TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE = 1000, 297, 500


@dataclass(frozen=True)
class Subset:
    """Images, shape (N, 8, 8) float32, and their classes, shape (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Digits:
    """One split of the 1,797 images; the three parts share no image."""

    train: Subset
    validation: Subset
    test: Subset


def digits(seed: int) -> Digits:
    """Split the images at random from `seed` and standardise them.

    `x = (pixel - mean) / std` with one mean and one standard deviation, both of the training part, so
    that nothing of the validation or test images enters the training.
    """
    images, labels = _images_and_labels()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = torch.split(order, [TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE])
    std, mean = torch.std_mean(images[parts[0]])
    images = (images - mean) / std
    train, validation, test = (Subset(images[part], labels[part]) for part in parts)
    return Digits(train, validation, test)


@lru_cache(maxsize=1)
def _images_and_labels() -> tuple[Tensor, Tensor]:
    raw = load_digits()
    return torch.tensor(raw.images, dtype=torch.float32), torch.tensor(raw.target, dtype=torch.int64)
