"""PyTorch's own recipe for a loader, and how a worker process is seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import get_worker_info

from ..scope.options import Options
from ..seeds import check_seed, source_seeds
from ..sources.base import Source
from ..sources.registry import running_sources, select_sources
from ..sources.seen import Seen
from ..sources.watch import WATCH
from .held import Held


class SourcesAlone(Options):
    """The options of a sample in the main process: sources only, as in a worker.

    Args:
        held: the generators that the dataset holds.
    """

    __slots__ = ("held",)

    def __init__(self, held: tuple[Source, ...] = ()) -> None:
        super().__init__(deterministic=False, independent=True)
        self.held: tuple[Source, ...] = held

    def governed(self) -> tuple[Any, ...]:
        return (*select_sources(), *self.held, WATCH)


def loader_options(seed: int) -> dict[str, Any]:
    """Return `generator` and `worker_init_fn` for a DataLoader, as PyTorch recommends.

    Every new `DataLoader(dataset, **loader_options(1029))` has the same order and the same
    worker seeds, also for the generators that the dataset holds. Samples still depend on the
    number of workers, unless the dataset is a `SeededDataset`.

    Raises:
        TypeError, ValueError: `seed` is not an integer in [0, 2**64).

    See: https://docs.pytorch.org/docs/stable/notes/randomness.html#dataloader
    """
    generator = torch.Generator().manual_seed(check_seed(seed))
    return {"generator": generator, "worker_init_fn": seed_worker}


def seed_worker(worker_id: int) -> None:
    """Seed every source of a loader's worker from the seed that torch gave the worker."""
    worker = get_worker_info()
    held = () if worker is None else Held(worker.dataset, "dataset").sources
    seed_process((*running_sources(), *held), torch.initial_seed())


class SeededStart:
    """A `worker_init_fn` for which every source is seeded, also new generators without a seed.

    Args:
        start: the function itself.
        held: what the dataset holds; a forked worker need not search for it again.
    """

    def __init__(self, start: Callable[[int], Any], held: Held) -> None:
        self._start, self._held = start, held

    def __call__(self, worker_id: int) -> None:
        seed_process((*running_sources(), *self._held.sources), torch.initial_seed())
        self._start(worker_id)


def seed_process(sources: Iterable[Source], seed: int) -> None:
    """Seed the sources of a worker process, each with a seed of its own; nothing is restored.

    Generators that the process makes without a seed follow the sources from then on.
    """
    if not WATCH.is_on:
        WATCH.restore(Seen())
    seed_of = source_seeds(seed)
    for source in sources:
        source.seed(seed_of(source.name))
