"""A network with dropout and shuffled data, for the tests with libraries that train."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers import ROOT

RECIPES = ROOT / "docs" / "recipes.md"
INPUTS = torch.linspace(-1, 1, 48).reshape(24, 2)
BATCHES = 6  # in an epoch


class Killed(Exception):
    """The end of a run that is killed."""


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))


def optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 0.05)


def loader(workers: int = 0) -> DataLoader:
    fork = "fork" if workers else None
    data = TensorDataset(INPUTS)
    return DataLoader(data, 4, shuffle=True, num_workers=workers, multiprocessing_context=fork)


def weights(model: torch.nn.Module) -> list[float]:
    return torch.cat([parameter.flatten() for parameter in model.parameters()]).tolist()
