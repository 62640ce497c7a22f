"""Augmented samples, and the time that `SeededDataset` adds to one sample."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from seedscope import SeededDataset
from seedscope.data.options import seed_process
from seedscope.sources.registry import running_sources

from .harness import (
    Samples,
    measure,
)
from .peers import SEED
from .scope_arms import make_reseeds

SIZE, BATCH = 224, 32
IMAGES, IMAGE_SIZE = 64, 256  # too many images to all stay in the cache
ONCE, ANEW, GIVEN = "made once", "made for each sample", "made once, generators for each sample"
PLAIN, SEEDED = "plain", "SeededDataset"
SEEDED_PIPELINE = "SeededDataset, pipeline held"
SEEDING = "its seeding alone"
HOT, COLD = "in a loop", "after an augmentation"


def make_pipeline() -> Any:
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    return A.Compose(
        [
            A.RandomResizedCrop((SIZE, SIZE)),
            A.HorizontalFlip(),
            A.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            A.GaussianBlur(p=0.5),
            A.Normalize(),
            ToTensorV2(),
        ]
    )


def one_thread(worker_id: int = 0) -> None:
    """Keep OpenCV and torch to one thread, as albumentations advises for loaders."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class Augmented(Dataset[torch.Tensor]):
    """Random images in memory, augmented to float32 tensors of shape (3, 224, 224)."""

    def __init__(self, length: int, spelling: str) -> None:
        shape = (IMAGES, IMAGE_SIZE, IMAGE_SIZE, 3)
        self.images = np.random.default_rng(SEED).integers(0, 256, shape, dtype=np.uint8)
        self.length = length
        self.spelling = spelling
        self.pipeline = make_pipeline()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.spelling == ANEW:
            self.pipeline = make_pipeline()
        elif self.spelling == GIVEN:
            # All transforms share one pair, as Compose makes it. (`set_random_seed` would
            # give each transform its own pair from the same seed.)
            self.pipeline.set_random_state(np.random.default_rng(), random.Random())
        image: torch.Tensor = self.pipeline(image=self.images[index % IMAGES])["image"]
        return image


class Nothing(Dataset[int]):
    """A dataset that costs nothing and never ends."""

    def __getitem__(self, index: int) -> int:
        return index


class Holding(Nothing):
    """A dataset that costs nothing, and holds objects such as generators."""

    def __init__(self, *held: object) -> None:
        self.held = held


class TimedInWorker(Dataset[Any]):
    """A dataset of one sample: the result of `measured` in the process that draws the sample."""

    def __init__(self, measured: Callable[[], Any]) -> None:
        self.measured = measured

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.measured()


def draws(in_worker: bool) -> dict[str, Callable[[], object]]:
    """Return the draws of a sample: plain, by `SeededDataset`; in a worker, its seeding too."""
    dataset = Nothing()
    arms = {PLAIN: draw(dataset), SEEDED: draw(SeededDataset(dataset, SEED))}
    if in_worker:  # in the main process nothing would restore the states
        seeds = itertools.count(SEED)  # a new seed for each sample: a repeated seed is faster
        sources = running_sources()
        arms[SEEDING] = lambda: seed_process(sources, next(seeds))
    return arms


def draw(dataset: Any) -> Callable[[], object]:
    """Return the draw of a new sample of a dataset."""
    numbers = itertools.cycle(range(100_000))
    return lambda: dataset[next(numbers)]


def costs(rounds: int, in_worker: bool) -> dict[str, dict[str, Samples]]:
    """Return microseconds a sample: of the dataset, of `SeededDataset`, of seeding.

    Of `SeededDataset` also around a dataset that holds a pipeline, whose generators it seeds.
    `HOT` times the calls in a loop, `COLD` times each call after an augmentation.
    """
    work = Augmented(IMAGES, ONCE)
    held = SeededDataset(Holding(make_pipeline()), SEED)
    arms = draws(in_worker) | {SEEDED_PIPELINE: draw(held)}
    arms |= make_reseeds() if in_worker else {}
    hot = measure(arms, rounds=rounds, block_s=0.001)[0]
    cold: dict[str, Samples] = {name: [] for name in arms}
    order = random.Random(SEED)
    for number in range(rounds):
        for name in order.sample(list(arms), len(arms)):
            work[number % IMAGES]
            begin = time.perf_counter_ns()
            arms[name]()
            cold[name].append((time.perf_counter_ns() - begin) / 1e3)
    return {HOT: hot, COLD: cold}
