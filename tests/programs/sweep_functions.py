"""Functions for tests of sweeps, where every kind of worker can import them."""

from __future__ import annotations

import math
import os
import random
import time

import numpy as np
import torch

from seedscope import note


def draws() -> float:
    """A number that depends on every source, and on the number of threads that add it up."""
    values = torch.randn(200_000)
    sources = random.random() + np.random.rand() + np.random.default_rng().random()
    note(threads=torch.get_num_threads())
    return (values.sum() + (values[:4000].view(40, 100) @ values[:100]).sum()).item() + sources


def draws_for_long() -> float:
    """Draw for so long that a worker's other threads act meanwhile."""
    before = draws()
    time.sleep(0.7)
    return before + draws()


def tensor(seed: int) -> torch.Tensor:
    return torch.rand(()) + seed


def sometimes_fails(seed: int) -> float:
    if seed % 4 == 3:
        raise ValueError(f"diverged at seed {seed}")
    return math.nan if seed % 4 == 2 else float(seed)


def slow() -> float:
    time.sleep(0.05)
    return torch.rand(1).item()


def counted() -> float:
    """Leave a mark for each run, so that a test sees how many seeds ran again."""
    with open(os.environ["MARKS"], "a") as file:
        file.write("x\n")
    time.sleep(0.02)
    return torch.rand(1).item()


def not_a_number() -> str:
    return "0.5"
