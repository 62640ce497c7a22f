"""Warnings of samples that repeat: an epoch that is drawn twice, an index that is drawn twice."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Hashable, Iterable, Sized
from typing import Any

from torch.utils.data import get_worker_info

from ..snapshots import capture_all, restore_all
from ..sources.base import Source, fingerprints
from ..support.remarks import level_of_the_user
from .callers import fetcher
from .options import seed_process
from .shared import DRAWS, DREW, PASSES, SET, TOLD_EPOCH, TOLD_INDEX, Shared

_REMEMBERED = 10_000  # indices of a pass

EPOCH = (
    "each pass has the same samples, those of epoch 0, and the same order if that is seeded: "
    "set_epoch was never called. Call set_epoch(epoch) before each pass: of the seeded_loader or "
    "the SeededSampler if there is one, else of the SeededDataset. If all passes shall be the "
    "same, call set_epoch(0) once."
)
OVERRULED = (
    "the dataset has epoch {epoch}, and its SeededSampler epoch 0, which counts: call set_epoch of "
    "the sampler, and not of the dataset."
)
INDEX = (
    "the index {index} was drawn twice in one pass, and both samples have the same random numbers. "
    "Draw the order with seedscope.SeededSampler(sampler, seed), or the loader with seeded_loader, "
    "which tell repeated draws apart."
)


class Repeats:
    """What one process has drawn so far, compared with what all processes have drawn."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._length: int | None = None
        self._passes = 0
        self._fetcher: Any = None  # a weak reference to that of the last pass that was looked at
        self._indices: set[Hashable] = set()  # of one epoch, drawn since then
        self._epoch = 0

    def note_draw(self, epoch: int, dataset: Sized, number: int) -> None:
        """Note samples of a map-style dataset; warn once if a second pass has drawn all again."""
        shared = self._shared
        if shared.has(SET | TOLD_EPOCH) or not _is_drawn_by_loader():
            return
        if epoch:  # a sampler was told
            shared.add(SET)
            return
        if self._length is None:
            self._length = _length(dataset)
        # A look takes longer than the count. Some looks in a pass are enough.
        before = shared.count(DRAWS, number) - number
        step = max(1, self._length // 64)
        if self._length and before // step != (before + number) // step:
            has_drawn_twice = shared.counted(DRAWS) >= 2 * self._length
            if self._notices_pass() and self._passes > 1 and has_drawn_twice:
                self.warn_of_epoch()

    def note_pass(self, epoch: int) -> None:
        """Note a pass over an iterable dataset in this worker; warn once of the second."""
        if not (epoch or self._shared.has(SET)) and self._shared.count(PASSES) > 1:
            self.warn_of_epoch()

    def warn_of_epoch(self, has_drawn: bool = False) -> None:
        if (has_drawn or self._shared.has(DREW)) and not self._shared.has(SET | TOLD_EPOCH):
            self._shared.add(TOLD_EPOCH)
            warnings.warn(EPOCH, UserWarning, stacklevel=level_of_the_user())

    def note_overruled(self, epoch: int) -> None:
        """Warn once if the sampler was never told an epoch, but the dataset was."""
        if not epoch and self._shared.epoch and not self._shared.has(TOLD_EPOCH):
            self._shared.add(TOLD_EPOCH)
            text = OVERRULED.format(epoch=self._shared.epoch)
            warnings.warn(text, UserWarning, stacklevel=level_of_the_user())

    def note_index(self, epoch: int, keys: tuple[Any, ...]) -> None:
        """Note an index that tells no repeats apart; warn once if a pass has drawn it before."""
        if epoch != self._epoch:
            self._indices, self._epoch = set(), epoch
        if not self._indices:
            self._notices_pass()
        is_repeated = keys in self._indices and self._notices_pass() and keys in self._indices
        if len(self._indices) < _REMEMBERED:
            self._indices.add(keys)
        if is_repeated and self._shared.has(DREW) and not self._shared.has(TOLD_INDEX):
            self._shared.add(TOLD_INDEX)
            shown = keys[0] if len(keys) == 1 else keys
            warnings.warn(INDEX.format(index=shown), UserWarning, stacklevel=level_of_the_user())

    def _notices_pass(self) -> bool:
        """Return whether a loader draws, and not code by hand; forget the pass before this one."""
        now = fetcher()
        if now is not None and (self._fetcher is None or self._fetcher() is not now):
            self._fetcher = weakref.ref(now)
            self._indices = set()
            self._passes = self._shared.count(PASSES)
        return now is not None


def _is_drawn_by_loader() -> bool:
    """Return whether a loader draws. In a worker nobody else does."""
    return get_worker_info() is not None or fetcher() is not None


def _length(dataset: Sized) -> int:
    try:
        return len(dataset)
    except TypeError:
        return 0  # no number of draws is a pass


def have_drawn(sources: Iterable[Source], seed: int) -> bool:
    """Return whether a source has other numbers to come than `seed` gives it."""
    states = capture_all(sources)
    try:
        now = fingerprints(states)
        seed_process(states, seed)
        fresh = fingerprints(states)
    finally:
        restore_all({**states})
    return any(now[s] is not None and not s.same(now[s], fresh[s]) for s in states)
