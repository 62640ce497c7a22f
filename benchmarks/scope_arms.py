"""The ways to seed a block that `scope_overhead` times: scopes, their floors, and peers."""

from __future__ import annotations

import ctypes
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seedscope import RunLog, SeededDataset, Stream, seeded, snapshot
from seedscope.settings.registry import SETTINGS, values_for
from seedscope.sources.registry import select_sources

from .peers import SEED, Arm, Body, block, forked, nothing, recipe

BLOCK, DECORATOR, EMPTY = "with seeded(1029)", "@seeded(1029)", "empty function"
NEW_SEED = "with seeded(a new seed each time)"
STREAM, STEP = "with Stream(1029), entered again", "@seeded(1029), a generator's step"
LOG, SAMPLE = "with seeded(1029, log=...)", "SeededDataset in the main process"
SNAPSHOT = "snapshot()"
RECIPE, FORKED = "hand-written recipe", "fork_rng + manual_seed (torch alone)"
FLOOR, FLOOR_AS_SET = "sum of its primitives", "sum of its primitives, no writes"
MEMORY_FLOOR = "sum of its primitives, states in memory"
RESEED, RESEED_FLOOR = "reseed as a worker does", "reseed: its primitives"


def primitives(device: str, deterministic: bool) -> Arm:
    """Return the floor of a scope: the public calls that do the same, prepared in advance.

    The floor assumes what a scope must find out: that NumPy holds its MT19937 with no
    Gaussian cached, that no accelerator has started, and which settings differ.
    """
    generators = [torch.default_generator]
    if device == "cuda":
        generators += torch.cuda.default_generators
    words = _words()
    reads = [setting.read for setting in SETTINGS._settings]
    writes = _writes(deterministic)

    def run(body: Body = nothing) -> None:
        python, numpy = random.getstate(), bytes(words)
        states = [generator.get_state() for generator in generators]
        for read in reads:
            read()
        for write, inside, _ in writes:
            write(inside)
        random.seed(SEED)
        np.random.seed(SEED)
        for generator in generators:
            generator.manual_seed(SEED)
        try:
            body()
        finally:
            random.setstate(python)
            words[:] = numpy
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            for read in reads:
                read()
            for write, _, outside in writes:
                write(outside)

    return Arm(run, run, has_writes=deterministic)


def _words() -> memoryview:
    """Return the 625 words of the state of NumPy's MT19937, whose address is constant."""
    address = np.random.get_bit_generator().ctypes.state_address
    return memoryview((ctypes.c_char * (625 * 4)).from_address(address)).cast("B")


def _writes(deterministic: bool) -> list[tuple[Callable[[Any], Any], Any, Any]]:
    """Return, from a trial, the writes of `deterministic`, with the values inside and outside."""
    before = SETTINGS.capture()
    SETTINGS.apply(values_for(deterministic, None, True, SEED), before)
    now = SETTINGS.capture()
    SETTINGS.restore(before)
    return [
        (setting.write, inside, outside)
        for setting, inside, outside in zip(SETTINGS._settings, now, before, strict=True)
        if inside != outside
    ]


def in_memory() -> Arm:
    """Return the floor that copies states in memory and knows the seeded states."""
    [python] = select_sources(["python"])
    assert python._mapped is not None, "the layout of this interpreter's states is not known"
    words, generator = _words(), torch.default_generator
    memories: list[Any] = [python._mapped, words]
    reads = [setting.read for setting in SETTINGS._settings]
    writes = _writes(True)
    with seeded(SEED):
        fresh = [memory.tobytes() for memory in memories], generator.get_state()

    def run(body: Body = nothing) -> None:
        states, torchs = [memory.tobytes() for memory in memories], generator.get_state()
        for read in reads:
            read()
        for write, inside, _ in writes:
            write(inside)
        for memory, state in zip(memories, fresh[0], strict=True):
            memory[:] = state
        generator.set_state(fresh[1])
        try:
            body()
        finally:
            for memory, state in zip(memories, states, strict=True):
                memory[:] = state
            generator.set_state(torchs)
            for read in reads:
                read()
            for write, _, outside in writes:
                write(outside)

    return Arm(run, run)


def make_arms(device: str) -> dict[str, Arm]:
    """Return the arms that are timed around an empty block, by name."""
    kept = seeded(SEED)
    return {
        BLOCK: block(lambda: seeded(SEED)),
        "the same, object made before": block(lambda: kept),
        DECORATOR: Arm(seeded(SEED)(nothing), lambda body: seeded(SEED)(body)()),
        FLOOR: primitives(device, True),
        "seeded(1029, deterministic=False)": block(
            lambda: seeded(SEED, deterministic=False), has_writes=False
        ),
        FLOOR_AS_SET: primitives(device, False),
        EMPTY: Arm(nothing, lambda body: body()),
        RECIPE: block(recipe),
        FORKED: block(forked),
    }


def make_others(folder: Path) -> dict[str, Body]:
    """Return the other ways to open a scope; a log is written into `folder`."""
    seeds, stream, log = itertools.count(), Stream(SEED), RunLog(folder / "runs.jsonl")
    new_seed = block(lambda: seeded(next(seeds) % 2**32))
    dataset: Any = SeededDataset(range(2**40), SEED)
    samples = itertools.count()  # each sample has its own seed
    return {
        NEW_SEED: new_seed.call,
        STREAM: block(lambda: stream).call,
        STEP: seeded(SEED)(_forever)().__next__,
        LOG: block(lambda: seeded(SEED, log=log)).call,
        SAMPLE: lambda: dataset[next(samples)],
        SNAPSHOT: snapshot,
        MEMORY_FLOOR: in_memory().call,
    }


def _forever() -> Iterator[None]:
    while True:
        yield


def make_reseeds() -> dict[str, Body]:
    """Return the ways for a DataLoader worker to reseed for each sample, each with a new seed."""
    sources = select_sources(["python", "numpy", "torch", "unseeded"])
    seeds = itertools.count(SEED)

    def own() -> None:
        seed = next(seeds)
        for source in sources:
            source.seed(seed)

    def floor() -> None:
        seed = next(seeds)
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)

    def usual() -> None:
        seed = next(seeds)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    return {RESEED: own, RESEED_FLOOR: floor, "reseed: usual three calls": usual}


def training_step(device: str) -> Body:
    layers = [torch.nn.Linear(256, 256), torch.nn.Dropout(), torch.nn.Linear(256, 10)]
    model = torch.nn.Sequential(*layers).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs = torch.randn(64, 256, device=device)

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step
