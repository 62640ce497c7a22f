"""The time that `SeededDataset` adds to a sample for each generator that the dataset holds.

The datasets do nothing, and hold ten generators of a kind or none. The difference of the two,
divided by ten, is the cost of one generator; it includes the seed that the generator gets. The
derivation of that seed alone is timed beside it. In the main process the cost includes to put the
generator's state back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from seedscope import SeededDataset
from seedscope.seeds import source_seeds

from .data_samples import Holding, TimedInWorker, draw, one_thread
from .harness import Samples, measure, show, spread, summary
from .peers import SEED

HELD = 10
KINDS: dict[str, Callable[[], Any]] = {
    "random.Random": random.Random,
    "np.random.Generator (PCG64)": np.random.default_rng,
    "np.random.RandomState": np.random.RandomState,
    "torch.Generator": torch.Generator,
}
NONE, SEEDS = "no generator", "its seed alone"
WORKER, MAIN = "worker", "main process"
AIMS = {WORKER: "at most 4, seed apart", MAIN: "at most 20"}


def measure_held(quick: bool) -> dict[str, Any]:
    """Return microseconds that a sample takes longer for each generator, here and in a worker."""
    measured = partial(_longer, 10 if quick else 200)
    worker = DataLoader(TimedInWorker(measured), None, num_workers=1, worker_init_fn=one_thread)
    found = {WORKER: next(iter(worker)), MAIN: measured()}
    return {
        where: {name: summary(samples) for name, samples in arms.items()}
        for where, arms in found.items()
    }


def _longer(rounds: int) -> dict[str, Samples]:
    seed_of = source_seeds(SEED)
    names = [f"dataset.held[{number}]" for number in range(HELD)]
    datasets = {NONE: Holding()} | {
        kind: Holding(*(make() for _ in range(HELD))) for kind, make in KINDS.items()
    }
    arms = {name: draw(SeededDataset(dataset, SEED)) for name, dataset in datasets.items()}
    arms[SEEDS] = lambda: [seed_of(name) for name in names]
    us = measure(arms, rounds=rounds, block_s=0.001)[0]
    found = {
        kind: [(a - b) / HELD for a, b in zip(us[kind], us[NONE], strict=True)] for kind in KINDS
    }
    return {**found, SEEDS: [block / HELD for block in us[SEEDS]]}


def show_held(found: dict[str, Any]) -> None:
    rows = [[name, *(spread(arms[name], 2) for arms in found.values())] for name in (*KINDS, SEEDS)]
    show("microseconds a sample, for each generator held", ["", *found], rows)


def held_aims(found: dict[str, Any]) -> list[list[str]]:
    names = [*KINDS, SEEDS]
    return [
        [
            f"{name}, held, {where}, us",
            f"{found[where][name]['median']:.1f}",
            AIMS[where] if name in KINDS else "about 1",
        ]
        for where in (WORKER, MAIN)
        for name in names
        if name in KINDS or where == WORKER
    ]
