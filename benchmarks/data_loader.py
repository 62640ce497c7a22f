"""The time of an epoch of `seeded_loader`, beside that of a plain DataLoader.

Both loaders draw the same images through the same albumentations pipeline, made once. Two loaders
on the same dataset differ by some percent of CPU, because their workers have other places in
memory. So no two workers are compared: each epoch starts workers of its own, as a DataLoader does
without `persistent_workers`, and each of them searches the dataset for generators anew. A round
has two epochs of each loader, in a random order and then in the reverse one, and gives one ratio.
A second plain loader in each round shows how far two equal loaders are apart. The floor is a plain
loader of a dataset that seeds the same generators for each sample by hand: with public calls alone,
without deriving a seed, and with states of NumPy's generators that were made in advance.

The CPU time is that of the workers from their start to their end. The operating system counts it
when the loader has waited for them, so that no arm needs a `collate_fn` of its own.
"""

from __future__ import annotations

import gc
import random
import resource
import time
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from seedscope import seeded_loader

from .data_samples import BATCH, ONCE, Augmented, one_thread
from .harness import Samples, paired, progress, show, spread, summary
from .peers import SEED

PLAIN, AGAIN, OWN = "DataLoader", "DataLoader, again", "seeded_loader"
FLOOR = "DataLoader, seeded by hand"
ARMS = (PLAIN, AGAIN, FLOOR, OWN)
UNITS = {"wall": "by the clock", "cpu": "of the workers' CPU"}
WORKERS = 2


class SeededByHand(Dataset[torch.Tensor]):
    """The floor: the public calls that seed the generators for each sample."""

    def __init__(self, dataset: Augmented) -> None:
        self.dataset = dataset
        transforms = [dataset.pipeline, *dataset.pipeline.transforms]
        self.python = [transform.py_random for transform in transforms]
        self.numpy = [transform.random_generator.bit_generator for transform in transforms]
        self.state = np.random.PCG64(SEED).state

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        random.seed(index)
        np.random.seed(index)
        torch.default_generator.manual_seed(index)
        for generator in self.python:
            generator.seed(index)
        for bits in self.numpy:
            bits.state = self.state
        return self.dataset[index]


def loader_options(num_workers: int = WORKERS) -> dict[str, Any]:
    """Return the arguments that all loaders share."""
    return {
        "batch_size": BATCH,
        "shuffle": True,
        "num_workers": num_workers,
        "worker_init_fn": one_thread,
    }


def measure_epochs(quick: bool) -> dict[str, Any]:
    """Return seconds of two epochs of each loader, by the clock and of CPU, and their ratios."""
    rounds, length = (2, 64) if quick else (12, 2048)
    dataset = Augmented(length, ONCE)
    seconds: dict[str, dict[str, Samples]] = {unit: {arm: [] for arm in ARMS} for unit in UNITS}
    order = random.Random(SEED)
    for number in range(rounds):
        for samples in (samples for unit in seconds.values() for samples in unit.values()):
            samples.append(0.0)
        shuffled = order.sample(ARMS, len(ARMS))
        for arm in (*shuffled, *reversed(shuffled)):
            for unit, spent in zip(UNITS, _epoch(arm, dataset, number), strict=True):
                seconds[unit][arm][-1] += spent
        progress(f"seeded_loader, round {number + 1} of {rounds}")
    found: dict[str, Any] = {"length": length, "seconds_of_two_epochs": {}}
    for unit, arms in seconds.items():
        found["seconds_of_two_epochs"][unit] = {
            arm: summary(samples) | {"to_plain": paired(samples, arms[PLAIN])}
            for arm, samples in arms.items()
        }
    return found


def _epoch(arm: str, dataset: Augmented, epoch: int) -> tuple[float, float]:
    """Return the seconds of an epoch of a new loader: by the clock, and of its workers' CPU."""
    samples: Any = SeededByHand(dataset) if arm == FLOOR else dataset
    loader: Any = DataLoader(samples, **loader_options())
    if arm == OWN:
        loader = seeded_loader(dataset, SEED, **loader_options())
        loader.set_epoch(epoch)
    gc.collect()
    before = _ended_cpu()
    begin = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - begin, _ended_cpu() - before


def _ended_cpu() -> float:
    """Return the seconds of CPU of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show_epochs(found: dict[str, Any]) -> None:
    rows = [
        [how, arm, spread(times, 2), spread(times["to_plain"]) * (arm != PLAIN)]
        for unit, how in UNITS.items()
        for arm, times in found["seconds_of_two_epochs"][unit].items()
    ]
    rounds = found["seconds_of_two_epochs"]["wall"][PLAIN]["n"]
    title = f"seconds of two epochs of {found['length']}, {WORKERS} workers, pipeline made once"
    headers = ["", "loader", "seconds", "time to plain, paired"]
    show(f"{title}, {rounds} rounds", headers, rows)


def epoch_aims(found: dict[str, Any]) -> list[list[str]]:
    def more(arm: str) -> str:
        times = [found["seconds_of_two_epochs"][unit][arm]["to_plain"] for unit in UNITS]
        return ", ".join(f"{100 * (ratio['median'] - 1):+.1f}" for ratio in times)

    how = "more time, % by the clock, of CPU"
    rows = [[f"{arm}, {how}", more(arm), ""] for arm in (AGAIN, FLOOR)]
    return [[f"{OWN}, {how}", more(OWN), "at most 3"], *rows]
