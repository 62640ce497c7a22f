"""Data that draws random numbers everywhere, for the tests with libraries that load data."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from small_training import INPUTS

SEED = 1029


class Noisy(Dataset):
    """Samples with noise from global generators, and from one that the dataset holds."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng()

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = np.random.rand() + self.generator.random()
        return INPUTS[index] + 0.1 * (torch.rand(2) + noise)


def mix(samples: list[torch.Tensor]) -> torch.Tensor:
    """Return a batch in which each sample is mixed with another one, as MixUp does."""
    batch = torch.stack(samples)
    share = np.random.beta(1, 1)
    return share * batch + (1 - share) * batch[torch.randperm(len(batch))]


def are_equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    """Return whether two lists have the same batches, bit for bit."""
    return len(first) == len(second) and all(map(torch.equal, first, second))
