"""Data that does not depend on how many workers happen to load it."""

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


class _SourcesAlone(Options):
    """The options of a sample in the main process: as in a worker, settings are left alone."""

    __slots__ = ()

    def governed(self) -> tuple[Source, ...]:
        return select_sources()


_SAMPLE = _SourcesAlone(deterministic=False)


class SeededDataset(Dataset[Any]):
    """A dataset whose sample `i` of epoch `e` is a function of (seed, e, i) alone.

    The same with any number of workers, forked or spawned, persistent or not, any batch
    size and prefetch factor, shuffled or not, after resuming in mid-epoch, and whichever
    rank of a DistributedSampler draws it. It covers what the wrapped dataset draws from
    `random`, NumPy's and torch's global generators and from generators that it makes
    without a seed for each sample. A pipeline that is made once and keeps generators of its
    own must get new ones in `__getitem__`; `albumentations.Compose` by
    `pipeline.set_random_state(np.random.default_rng(), random.Random())`.

    In a worker the process belongs to the loader: its sources are seeded for each sample
    and not restored. In the main process the caller's state is kept, and determinism
    settings are the caller's: what a sample changes there stays changed.

    An iterable dataset has no index: it is seeded for each (seed, epoch, worker), so that
    it repeats with the same number of workers and is another one with another number.

    Args:
        dataset: a map-style dataset or an `IterableDataset`; found again as `.dataset`.
        seed: an integer in [0, 2**64).

    Raises:
        RuntimeError: in a thread worker, which has no random sources of its own.
    """

    def __new__(cls, dataset: Any = None, seed: Any = None) -> Any:
        # The loader tells the two kinds apart by their class.
        kind = SeededIterableDataset if isinstance(dataset, IterableDataset) else cls
        return object.__new__(kind)

    def __init__(self, dataset: Any, seed: int) -> None:
        self.seed = check_seed(seed)
        if isinstance(dataset, type) or not (
            hasattr(dataset, "__getitem__") or isinstance(dataset, IterableDataset)
        ):
            raise TypeError(f"expected a dataset, got {dataset!r} ({type(dataset).__name__})")
        self.dataset = dataset
        self._sources: tuple[Source, ...] | None = None  # of a worker, found on its first sample
        self._derive: tuple[int, Callable[..., int]] | None = None  # of the epoch last drawn from
        # Shared with the workers, so that persistent ones see a new epoch.
        self._epoch: Any = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._epoch_view: Any = self._epoch.numpy()  # the same memory, quicker to read

    @property
    def epoch(self) -> int:
        return int(self._epoch_view)

    def set_epoch(self, epoch: int) -> None:
        """Let the samples drawn from now on be those of `epoch`, an integer of at least 0.

        Call it before an epoch's loop, as with a `DistributedSampler`. It reaches
        persistent workers without restarting them.
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
                f"{type(self.dataset).__name__} has no length, which a sampler and shuffling "
                "need: give it a __len__, or the loader a sampler that needs none"
            ) from None

    def __getitem__(self, index: Any) -> Any:
        keys = _keys(index, self.dataset)
        # 32 bits: NumPy's seeding takes 2 us for them and 10 for more.
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
        """Seed a process that belongs to the loader; nothing is kept."""
        if self._sources is None:
            self._sources = running_sources()
        for source in self._sources:
            source.seed(seed)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_sources": None, "_derive": None, "_epoch_view": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch_view = self._epoch.numpy()


class SeededIterableDataset(SeededDataset, IterableDataset[Any]):
    """What `SeededDataset(dataset, seed)` is for an iterable dataset; see there."""

    def __iter__(self) -> Iterator[Any]:
        in_worker = _in_worker()
        worker = get_worker_info()
        seed = derive_seed(self.seed, "worker", self.epoch, 0 if worker is None else worker.id)
        if in_worker:
            self._seed_worker(seed % 2**32)
            return iter(self.dataset)
        return Seeded(seed % 2**32, _SAMPLE)(_iterate)(self.dataset)


def loader_options(seed: int) -> dict[str, Any]:
    """Return `generator` and `worker_init_fn` for a DataLoader, after PyTorch's own recipe.

    `DataLoader(dataset, **loader_options(1029))` gives the same order and the same worker
    seeds on every fresh loader. Samples still depend on the number of workers; with
    `SeededDataset` they do not.

    See: https://docs.pytorch.org/docs/stable/notes/randomness.html#dataloader
    """
    generator = torch.Generator().manual_seed(check_seed(seed))
    return {"generator": generator, "worker_init_fn": seed_worker}


def seed_worker(worker_id: int) -> None:
    """Seed every source of a loader's worker from the seed that torch gave it."""
    for source in running_sources():
        source.seed(torch.initial_seed() % 2**32)


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
    """What an index is derived from: integers and strings, alone or in a tuple."""
    if type(index) is int and index >= 0:
        return (index,)
    if isinstance(index, tuple):
        return index
    if not isinstance(index, str) and operator.index(index) < 0:
        return (operator.index(index) + len(dataset),)
    return (index,)
