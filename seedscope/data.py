"""Datasets and DataLoader options that make data independent of the number of workers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from .scope.options import Options
from .scope.scope import Scope
from .scope.seeded import Seeded
from .seeds import check_seed, derive_seed, deriver
from .sources.base import Source
from .sources.registry import running_sources, select_sources
from .sources.seen import Seen
from .sources.watch import WATCH


class _SourcesAlone(Options):
    """The options of a sample in the main process: sources only, as in a worker."""

    __slots__ = ()

    def governed(self) -> tuple[Any, ...]:
        return (*select_sources(), WATCH)


_SAMPLE = _SourcesAlone(deterministic=False)


class SeededDataset(Dataset[Any]):
    """A dataset whose sample `i` of epoch `e` depends only on (seed, e, i).

    A sample is the same with any number of workers, forked or spawned, persistent or not,
    with any batch size and prefetch factor, shuffled or not, after resuming in mid-epoch,
    and on any rank of a DistributedSampler. This covers the draws of the wrapped dataset
    from `random` and the global generators of NumPy and torch, and from generators that
    the dataset creates without a seed for each sample. A pipeline that keeps its own
    generators must get new ones in `__getitem__`; for `albumentations.Compose`, call
    `pipeline.set_random_state(np.random.default_rng(), random.Random())`.

    A worker process belongs to the loader: its sources are seeded for each sample and not
    restored. In the main process, the caller's random state is restored after each sample.
    Determinism settings are not: a setting that a sample changes stays changed.

    An iterable dataset has no index, so it is seeded for each (seed, epoch, worker). Its
    data repeats with the same number of workers, and differs with another number.

    Args:
        dataset: a map-style dataset or an `IterableDataset`; available as `.dataset`.
        seed: an integer in [0, 2**64).

    Raises:
        TypeError: `dataset` is not a dataset, or `seed` is not an integer.
        ValueError: `seed` is out of range.
        RuntimeError: a thread worker draws a sample; threads share the random sources.
    """

    def __new__(cls, dataset: Any = None, seed: Any = None) -> Any:
        # The loader distinguishes the two kinds by their class.
        kind = SeededIterableDataset if isinstance(dataset, IterableDataset) else cls
        return object.__new__(kind)

    def __init__(self, dataset: Any, seed: int) -> None:
        self.seed: int = check_seed(seed)
        if isinstance(dataset, type) or not (
            hasattr(dataset, "__getitem__") or isinstance(dataset, IterableDataset)
        ):
            raise TypeError(f"expected a dataset, got {dataset!r} ({type(dataset).__name__})")
        self.dataset: Any = dataset
        self._sources: tuple[Source, ...] | None = None  # a worker's, set at its first sample
        self._derive: tuple[int, Callable[..., int]] | None = None  # of the last epoch drawn from
        # Shared with the workers, so that persistent ones see a new epoch.
        self._epoch: Any = torch.zeros((), dtype=torch.int64, device="cpu").share_memory_()  # type: ignore[no-untyped-call]
        self._epoch_view: Any = self._epoch.numpy()  # the same memory, faster to read

    @property
    def epoch(self) -> int:
        return int(self._epoch_view)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the samples drawn from now on.

        Call `set_epoch` before each epoch's loop, as with a `DistributedSampler`. The
        change reaches persistent workers without a restart.

        Args:
            epoch: an integer in [0, 2**63).

        Raises:
            TypeError: `epoch` is not an integer.
            ValueError: `epoch` is out of range.
        """
        if isinstance(epoch, bool) or not hasattr(epoch, "__index__"):
            raise TypeError(f"epoch must be an integer, got {epoch!r} ({type(epoch).__name__})")
        value = operator.index(epoch)
        if not 0 <= value < 2**63:
            raise ValueError(f"epoch must be in [0, 2**63), got {value}")
        self._epoch.fill_(value)

    def __len__(self) -> int:
        try:
            return len(self.dataset)
        except TypeError:
            raise TypeError(
                f"{type(self.dataset).__name__} has no length, which shuffling and most samplers "
                "need: give the dataset a __len__, or the loader a sampler that needs none"
            ) from None

    def __getitem__(self, index: Any) -> Any:
        keys = _keys(index, self.dataset)
        # NumPy takes 2 us for a seed of 32 bits, and 10 us for a longer seed.
        seed = self._derive_for(self.epoch)(*keys) % 2**32
        if self._sources is not None or _in_worker():
            self._seed_worker(seed)
            return self.dataset[index]
        with Scope(seed, _SAMPLE, opener=self):
            return self.dataset[index]

    def _derive_for(self, epoch: int) -> Callable[..., int]:
        if self._derive is None or self._derive[0] != epoch:
            self._derive = epoch, deriver(self.seed, "sample", epoch)
        return self._derive[1]

    def _seed_worker(self, seed: int) -> None:
        """Seed the sources of a worker process; their states are not restored."""
        if self._sources is None:
            self._sources = running_sources()
            _watch_for_good()
        for source in self._sources:
            source.seed(seed)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_sources": None, "_derive": None, "_epoch_view": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch_view = self._epoch.numpy()


class SeededIterableDataset(SeededDataset, IterableDataset[Any]):
    """The class of `SeededDataset(dataset, seed)` for an iterable dataset; see there."""

    def __iter__(self) -> Iterator[Any]:
        in_worker = _in_worker()
        worker = get_worker_info()
        seed = derive_seed(self.seed, "worker", self.epoch, 0 if worker is None else worker.id)
        if in_worker:
            self._seed_worker(seed % 2**32)
            return iter(self.dataset)
        return Seeded(seed % 2**32, _SAMPLE)(_iterate)(self.dataset)


def loader_options(seed: int) -> dict[str, Any]:
    """Return `generator` and `worker_init_fn` for a DataLoader, as PyTorch recommends.

    Every new `DataLoader(dataset, **loader_options(1029))` has the same order and the same
    worker seeds. Samples still depend on the number of workers, unless the dataset is a
    `SeededDataset`.

    See: https://docs.pytorch.org/docs/stable/notes/randomness.html#dataloader
    """
    generator = torch.Generator().manual_seed(check_seed(seed))
    return {"generator": generator, "worker_init_fn": seed_worker}


def seed_worker(worker_id: int) -> None:
    """Seed every source of a loader's worker from the seed that torch gave the worker."""
    _watch_for_good()
    for source in running_sources():
        source.seed(torch.initial_seed() % 2**32)


def _watch_for_good() -> None:
    """Let generators that a worker process makes without a seed follow the sources from now on."""
    if not WATCH.is_on:
        WATCH.restore(Seen())


def _iterate(dataset: Any) -> Iterator[Any]:
    yield from dataset


def _in_worker() -> bool:
    worker = get_worker_info()
    if worker is not None and getattr(worker, "worker_method", None) == "thread":
        raise RuntimeError(
            "SeededDataset needs worker processes: thread workers share the random sources of "
            'this process. Create the DataLoader with worker_method="multiprocessing".'
        )
    return worker is not None


def _keys(index: Any, dataset: Any) -> tuple[Any, ...]:
    """Return the keys of an index: an integer or a string, or a tuple of them."""
    if type(index) is int and index >= 0:
        return (index,)
    if isinstance(index, tuple):
        return index
    if not isinstance(index, str) and operator.index(index) < 0:
        return (operator.index(index) + len(dataset),)
    return (index,)
