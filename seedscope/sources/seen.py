"""What a block has seen other code do: seed its sources, start processes."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from .base import Source

_NOTHING: dict[str, Any] = {}


class Seen:
    """What a block has seen other code do.

    A seed of other code is in force until another seed or a restored state takes its place. A
    generator of torch knows its last seed, also that of a state that it got. For Python and
    NumPy the calls are noted.

    Attributes:
        processes: the number of worker processes that other code has started.
        expects_processes: whether the processes that are started now seed themselves.
        around: what the block around has seen, or False.
    """

    __slots__ = (
        "_given",
        "_governed",
        "_inner",
        "_noted",
        "_own",
        "_saved",
        "_saved_by_torch",
        "around",
        "expects_processes",
        "processes",
    )

    def __init__(self) -> None:
        # Most blocks see nothing: an empty collection below is replaced, and never changed.
        self.processes: int = 0
        self.expects_processes: bool = False
        self._own: set[int] = set()  # the block's seed, and seeds derived from it
        self._given: dict[Source, list[int]] = {}  # the last seeds that are not other code's
        self._noted: dict[str, Any] = (
            _NOTHING  # other code's seeds of Python and NumPy, in force now
        )
        self._saved: dict[str, Any] = _NOTHING  # those in force where a state was last saved
        self._saved_by_torch: frozenset[int] = frozenset()  # other code's seeds in states of torch
        self._inner: dict[str, Any] = _NOTHING  # other code's seeds in blocks that follow this one
        self._governed: tuple[Source, ...] = ()
        self.around: Seen | bool = False

    def own(self, *seeds: int) -> None:
        """Take seeds for the block's own, also if they are cut to 32 bits for a library."""
        self._own.update(seeds, (seed % 2**32 for seed in seeds))

    def begin(self, sources: Iterable[Source], around: Seen | bool) -> None:
        """Begin to look at the sources; `around` is what the block around has seen."""
        self._governed, self.around = tuple(sources), around
        self._given = _last_seeds(self._governed)

    def reseeded(self) -> dict[str, Any]:
        """Return other code's seed of each source that has one; None is fresh entropy."""
        return {**self._inner, **self._noted, **self._in_torch()}

    def add(self, inner: dict[str, Any]) -> None:
        """Add what a block has seen whose seed follows from this one."""
        self._inner = {**self._inner, **inner}

    def note_seed(self, name: str, seed: Any) -> None:
        """Note a call that has seeded a source, in the innermost block that governs it."""
        if all(source.name != name for source in self._governed):
            if isinstance(self.around, Seen):
                self.around.note_seed(name, seed)
            return
        try:
            number = operator.index(seed)
        except TypeError:  # None for fresh entropy, or an array
            number = None
        self._noted = {key: value for key, value in self._noted.items() if key != name}
        if number not in self._own:
            self._noted[name] = number

    def note_save(self) -> None:
        """Note that other code has saved a state, presumably to restore it later."""
        self._saved = self._noted
        self._saved_by_torch |= {*self._in_torch().values()}

    def last_seeds(self) -> dict[Source, list[int]]:
        """Return the present seeds of torch's generators, for `note_restore`."""
        return _last_seeds(self._given)

    def note_restore(self, names: Iterable[str], before: dict[Source, list[int]]) -> None:
        """Note that states were restored: of the sources `names`, and of torch."""
        kept = {name: seed for name, seed in self._noted.items() if name not in names}
        restored = {name: seed for name, seed in self._saved.items() if name in names}
        self._noted = {**kept, **restored}
        for source, seeds in self.last_seeds().items():
            if seeds != before.get(source) and self._saved_by_torch.isdisjoint(seeds):
                self._given[source] = seeds

    def _in_torch(self) -> dict[str, int]:
        found = {}
        for source, given in self._given.items():
            seeds = source.last_seeds()
            if seeds != given and (other := {*seeds} - {*given, *self._own}):
                found[source.name] = min(other)
        return found


def _last_seeds(sources: Iterable[Source]) -> dict[Source, list[int]]:
    return {source: seeds for source in sources if (seeds := source.last_seeds())}
