"""The time to the first batch of a resumed epoch, and what the order of an epoch costs.

A loader loads the state of half an epoch and gives its first batch, beside a loader that begins
the epoch. Both are new, on the same dataset, which counts how often each index is drawn. The order
alone is timed on indices that cost nothing: the first index of a large dataset, and a whole pass.
"""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch.utils.data import RandomSampler

from seedscope import SeededSampler, seeded_loader

from .data_loader import loader_options
from .data_samples import BATCH, ONCE, Augmented
from .harness import Samples, paired, progress, show, spread, summary
from .peers import SEED

FRESH, RESUMED = "a fresh epoch", "resumed at half"
PLAIN, OWN, OWN_RESUMED = "RandomSampler", "SeededSampler", "SeededSampler, from half"
FIRST, PASS = "first index, ms", "whole pass, us an index"
WORKERS = (0, 2)


class Counted(Augmented):
    """Augmented images that count how often each was drawn, in memory that workers share."""

    def __init__(self, length: int) -> None:
        super().__init__(length, ONCE)
        drawn: Any = torch.zeros(length, dtype=torch.int64)
        self.drawn = drawn.share_memory_()

    def __getitem__(self, index: int) -> torch.Tensor:
        self.drawn[index] += 1
        return super().__getitem__(index)


def measure_resuming(quick: bool) -> dict[str, Any]:
    """Return milliseconds to the first batch, and samples drawn, for each number of workers."""
    rounds, length = (2, 4 * BATCH) if quick else (20, 16 * BATCH)
    dataset = Counted(length)
    half = seeded_loader(dataset, SEED, **loader_options(0))
    half.set_epoch(1)
    deque(islice(half, len(half) // 2), 0)
    state, is_before = half.state_dict(), dataset.drawn > 0
    ms: dict[int, dict[str, Samples]] = {n: {FRESH: [], RESUMED: []} for n in WORKERS}
    drawn: dict[int, list[int]] = {n: [0, 0] for n in WORKERS}
    for number in range(rounds):
        for workers in WORKERS:
            for arm in (FRESH, RESUMED) if number % 2 else (RESUMED, FRESH):
                dataset.drawn.zero_()
                ms[workers][arm].append(_first_batch(dataset, workers, arm, state))
                if arm == RESUMED:
                    drawn[workers][0] += int(dataset.drawn[is_before].sum())
                    drawn[workers][1] += int(dataset.drawn[~is_before].sum())
        progress(f"resuming, round {number + 1} of {rounds}")
    return {
        "length": length,
        "workers": {
            str(workers): {
                "ms": {arm: summary(samples) for arm, samples in arms.items()},
                "to_fresh": paired(arms[RESUMED], arms[FRESH]),
                # By all resumed epochs, each drawn to its end.
                "drawn_before_the_place": drawn[workers][0],
                "drawn_after_the_place": drawn[workers][1],
            }
            for workers, arms in ms.items()
        },
    }


def _first_batch(dataset: Counted, workers: int, arm: str, state: dict[str, Any]) -> float:
    """Return milliseconds to the first batch of a new loader, and draw the epoch to its end."""
    loader = seeded_loader(dataset, SEED, **loader_options(workers))
    gc.collect()
    begin = time.perf_counter()
    if arm == RESUMED:
        loader.load_state_dict(state)
    else:
        loader.set_epoch(state["epoch"])
    batches = iter(loader)
    next(batches)
    ms = (time.perf_counter() - begin) * 1e3
    deque(batches, 0)  # the workers end with the epoch
    return ms


def measure_orders(quick: bool) -> dict[str, Any]:
    """Return the times of the samplers: to the first index, and of each index of a pass."""
    large, pass_length = (10**6, 10**5) if quick else (10**7, 10**6)
    rounds = 3 if quick else 11
    resumed = SeededSampler(range(large), SEED)
    place = {**resumed.state_dict(), "position": large // 2}

    def resume() -> None:
        resumed.load_state_dict(place)
        next(iter(resumed))

    firsts: dict[str, Callable[[], object]] = {
        name: lambda sampler=sampler: next(iter(sampler))  # type: ignore[misc]
        for name, sampler in _samplers(large).items()
    }
    passes: dict[str, Callable[[], object]] = {
        name: lambda sampler=sampler: deque(sampler, 0)  # type: ignore[misc]
        for name, sampler in _samplers(pass_length).items()
    }
    return {
        FIRST: {"length": large} | _timed(firsts | {OWN_RESUMED: resume}, rounds, 1e3),
        PASS: {"length": pass_length} | _timed(passes, rounds, 1e6 / pass_length),
    }


def _samplers(length: int) -> dict[str, Any]:
    indices = range(length)
    return {PLAIN: RandomSampler(indices), OWN: SeededSampler(indices, SEED)}


def _timed(arms: dict[str, Callable[[], object]], rounds: int, scale: float) -> dict[str, Any]:
    """Return the times of single calls in random order, in seconds times `scale`."""
    times: dict[str, Samples] = {name: [] for name in arms}
    order = random.Random(SEED)
    for number in range(rounds):
        for name in order.sample(list(arms), len(arms)):
            gc.collect()
            begin = time.perf_counter()
            arms[name]()
            times[name].append((time.perf_counter() - begin) * scale)
        progress(f"order, round {number + 1} of {rounds}")
    return {
        "arms": {
            name: summary(samples) | {"to_plain": paired(samples, times[PLAIN])}
            for name, samples in times.items()
        }
    }


def show_resuming(found: dict[str, Any], orders: dict[str, Any]) -> None:
    rows = [
        [
            f"{workers} workers",
            *(spread(case["ms"][arm], 1) for arm in (FRESH, RESUMED)),
            spread(case["to_fresh"]),
            f"{case['drawn_before_the_place']}, {case['drawn_after_the_place']}",
        ]
        for workers, case in found["workers"].items()
    ]
    headers = ["", FRESH, RESUMED, "to fresh, paired", "drawn before, after the place"]
    show(f"ms to the first batch, epoch of {found['length']}, batch {BATCH}", headers, rows)
    rows = [
        [what, f"{order['length']:,}", arm, spread(times, 2), spread(times["to_plain"], 2)]
        for what, order in orders.items()
        for arm, times in order["arms"].items()
    ]
    headers = ["", "length", "sampler", "time", "to plain, paired"]
    show("order, of indices that cost nothing", headers, rows)


def resume_aims(found: dict[str, Any], orders: dict[str, Any]) -> list[list[str]]:
    cases = [(f"{n} workers", case) for n, case in found["workers"].items()]
    ratios = (f"{case['to_fresh']['median']:.2f}" for _, case in cases)
    before = (str(case["drawn_before_the_place"]) for _, case in cases)
    names = ", ".join(name for name, _ in cases)
    return [
        [f"first batch, {RESUMED}, to {FRESH}, {names}", ", ".join(ratios), "1"],
        [f"samples drawn before the place, {names}", ", ".join(before), "0"],
        *(
            [f"{arm}, {what}, to {PLAIN}", f"{order['arms'][arm]['to_plain']['median']:.2f}", ""]
            for what, order in orders.items()
            for arm in order["arms"]
            if arm != PLAIN
        ),
    ]
