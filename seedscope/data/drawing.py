"""How one process draws the samples of a `SeededDataset`."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import get_worker_info

from ..scope.scope import Scope
from ..scope.seeded import Seeded
from ..seeds import derive_seed, deriver
from ..sources.base import Source
from ..sources.registry import running_sources, select_sources
from .held import Held
from .options import SourcesAlone, seed_process
from .repeats import Repeats, have_drawn
from .shared import DREW, SET, TOLD_HELD, Shared

_LOOKS = 8  # samples of a process that are looked at: do they draw numbers?


class Drawing:
    """How one process draws the samples of a dataset: seeds the sources, and draws.

    Attributes:
        held: the generators that the dataset holds.
        shared: what the process shares with others.
        last_seed: the seed of the sample that was drawn last, which the batch's follows from.
        begun: the process and the epoch in which it draws; None before the first sample.
    """

    def __init__(self, dataset: Any, seed: int, held: Held) -> None:
        self.held: Held = held
        self.shared: Shared = Shared()
        self.last_seed: int = seed
        self._dataset, self._seed = dataset, seed
        self._forget()
        self._tell()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("held", "shared", "last_seed", "_dataset", "_seed")
        return {name: vars(self)[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __copy__(self) -> Drawing:
        copied = object.__new__(Drawing)
        copied.__setstate__({**self.__getstate__(), "shared": copy.copy(self.shared)})
        return copied

    def _forget(self) -> None:
        self.begun: tuple[int, int] | None = None  # the process and the epoch
        self._derive: Callable[..., int] = deriver(self._seed)
        self._sources: tuple[Source, ...] = ()  # those of a worker
        self._options = SourcesAlone()
        self._looks = _LOOKS
        self._batches = 0  # that were made of an iterable dataset's samples
        self.repeats: Repeats = Repeats(self.shared)

    def sample(self, epoch: int, keys: tuple[int | str, ...], draw: Callable[[], Any]) -> Any:
        """Return what `draw` returns, with the sources seeded for the keys."""
        is_new = self._begin(epoch)
        self.last_seed, self._batches = self._derive(*keys), 0
        seed = self.last_seed
        result = self._seeded(seed, draw)
        if is_new and self._has_made_generators():
            # The sample has made a generator that the dataset keeps. In another process this
            # sample may not be the first one, and finds the generator there.
            result = self._seeded(seed, draw)
        return result

    def samples(self, epoch: int) -> Iterator[Any]:
        """Return an iterator of an iterable dataset, seeded for this worker."""
        self._begin(epoch)
        worker = get_worker_info()
        self.last_seed = seed = self._derive("worker", 0 if worker is None else worker.id)
        self._batches = 0
        if in_worker():
            seed_process(self._sources, seed)
            return self._iterate(epoch, seed)
        return Seeded(seed, self._options)(Drawing._iterate)(self, epoch, seed)

    def batch_seed(self) -> int:
        """Return the seed of the batch that is made of what was drawn last."""
        self._batches += 1
        return derive_seed(self.last_seed, "batch", self._batches)

    def _seeded(self, seed: int, draw: Callable[[], Any]) -> Any:
        if in_worker():
            seed_process(self._sources, seed)
            result = draw()
            self._look_at_draws(seed)
            return result
        with Scope(seed, self._options, opener=self):
            result = draw()
            self._look_at_draws(seed)
        return result

    def _iterate(self, epoch: int, seed: int) -> Iterator[Any]:
        self.repeats.note_pass(epoch)
        for sample in self._dataset:
            self._look_at_draws(seed)
            yield sample

    def _look_at_draws(self, seed: int) -> None:
        """Look whether the samples draw numbers, at the first ones that the process draws."""
        if self._looks and not self.shared.has(DREW):
            self._looks -= 1
            if have_drawn(self._sources or (*select_sources(), *self.held.sources), seed):
                self.shared.add(DREW)

    def _begin(self, epoch: int) -> bool:
        """Get ready for an epoch, and return whether this process is new."""
        now = os.getpid(), epoch
        if self.begun == now:
            return False
        is_new = self.begun is None or self.begun[0] != now[0]
        if epoch or self.shared.has(SET):  # an index may carry what a sampler alone was told
            self.pass_on(epoch)
        self._look_for_generators()
        self._derive = deriver(self._seed, "sample", epoch)
        self.begun = now
        return is_new

    def pass_on(self, epoch: int) -> None:
        """Tell the dataset itself the epoch, if it has a method for it."""
        set_epoch = getattr(self._dataset, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)

    def _look_for_generators(self) -> None:
        self.held.look()
        self._tell()
        self._options = SourcesAlone(self.held.sources)
        if in_worker():
            self._sources = (*running_sources(), *self.held.sources)

    def _has_made_generators(self) -> bool:
        """Search again, and return whether there are other generators than before."""
        before = [source.name for source in self.held.sources]
        self._look_for_generators()
        return before != [source.name for source in self.held.sources]

    def _tell(self) -> None:
        """Warn of what cannot be seeded, once for all processes."""
        if not self.shared.has(TOLD_HELD) and self.held.warn():
            self.shared.add(TOLD_HELD)


def in_worker() -> bool:
    """Return whether this is a loader's worker process.

    Raises:
        RuntimeError: a thread worker draws a sample; threads share the random sources.
    """
    worker = get_worker_info()
    if worker is not None and getattr(worker, "worker_method", None) == "thread":
        raise RuntimeError(
            "SeededDataset needs worker processes: thread workers share the random sources of "
            'this process. Create the DataLoader with worker_method="multiprocessing".'
        )
    return worker is not None
