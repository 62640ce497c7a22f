"""The peers of a scope: the recipe that people copy, and other libraries."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import packages_distributions, version
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.backends import cudnn

from .harness import progress

SEED = 1029

Body = Callable[[], object]
Factory = Callable[[], AbstractContextManager[object]]


class Arm(NamedTuple):
    """A way to run a block: empty, for timing, or around a body."""

    call: Body
    run: Callable[[Body], object]
    has_writes: bool = True  # whether it makes torch deterministic


def nothing() -> None:
    pass


def block(factory: Factory, **facts: bool) -> Arm:
    """Return the arm of a context manager that `factory` makes anew each time."""

    def call() -> None:
        with factory():
            pass

    def run(body: Body) -> None:
        with factory():
            body()

    return Arm(call, run, **facts)


@contextmanager
def recipe() -> Iterator[None]:
    """Seed a block by the recipe that people copy."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    flags = cudnn.benchmark, cudnn.deterministic
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        cudnn.benchmark, cudnn.deterministic = flags


@contextmanager
def forked() -> Iterator[None]:
    with torch.random.fork_rng():  # restores torch's generators only
        torch.manual_seed(SEED)
        yield


def _lightning(isolate_rng: Any) -> Factory:
    home = isolate_rng.__module__.removesuffix(".utilities.seed")
    seed_everything = importlib.import_module(home).seed_everything

    @contextmanager
    def isolated() -> Iterator[None]:
        with isolate_rng():  # does not seed
            seed_everything(SEED, verbose=False)
            yield

    return isolated


def _as_it_is(enter: Any) -> Factory:
    return lambda: enter(SEED)


#: The places where each peer may live, and the function that makes a seeded block of the peer.
PEERS: dict[str, tuple[list[str], Callable[[Any], Factory]]] = {
    "Lightning isolate_rng + seed_everything": (
        [
            f"{home}.utilities.seed:isolate_rng"
            for home in ("lightning.pytorch", "pytorch_lightning")
        ],
        _lightning,
    ),
    "fastai no_random": (["fastai.torch_core:no_random"], _as_it_is),
    "Composer seed_context": (["composer.utils.reproducibility:seed_context"], _as_it_is),
    "LeRobot seeded_context": (
        [f"lerobot.{top}.random_utils:seeded_context" for top in ("common.utils", "utils")],
        _as_it_is,
    ),
    "pytorch-seed SavedRNG": (["pytorch_seed:SavedRNG"], _as_it_is),
}


def find_peers() -> tuple[dict[str, Arm], dict[str, str], dict[str, str]]:
    """Return the peers that work, their versions, and why the others do not."""
    arms, versions, missing = {}, {}, {}
    for name, (places, prepare) in PEERS.items():
        progress(f"looking for {name}")
        for place in places:
            module, _, attribute = place.partition(":")
            try:
                enter = getattr(importlib.import_module(module), attribute)
                arm = block(prepare(enter))
                arm.call()
                package = packages_distributions()[module.partition(".")[0]][0]
                versions[name] = f"{package} {version(package)}"
            except Exception as error:  # an error in a peer is only reported
                reason = str(error).partition("\n")[0]
                missing[name] = f"not installed ({type(error).__name__}: {reason})"
            else:
                arms[name] = arm
                missing.pop(name, None)
                break
    return arms, versions, missing
