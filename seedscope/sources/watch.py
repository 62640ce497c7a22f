"""What other code does while a scope is open: seed a source, start a process."""

from __future__ import annotations

import functools
import operator
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch

from .accelerators import accelerators
from .base import Source

F = TypeVar("F", bound=Callable[..., Any])

# Modules whose processes need no seed: loaders give one, and a manager's server draws nothing.
_STARTERS = ("torch.utils.data", "torchdata", "multiprocessing.managers")


def unwatched(function: F) -> F:
    """Return the library's own function, for a call that no block shall notice."""
    return getattr(function, "_unwatched", function)


class Seen:
    """What a block has seen other code do.

    Attributes:
        seed: the block's seed. A call that seeds with the same seed is not noted.
        reseeded: the names of the sources that other code has seeded.
        processes: the number of worker processes that other code has started.
        expects_processes: whether the processes that are started now seed themselves.
    """

    __slots__ = ("expects_processes", "last_seeds", "processes", "reseeded", "seed")

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self.reseeded: set[str] = set()
        self.processes = 0
        self.expects_processes = False
        self.last_seeds: dict[Source, Any] = {}

    def begin(self, sources: Iterable[Source]) -> None:
        """Keep the last seed of each generator that knows it, for `look`."""
        self.last_seeds = _last_seeds(sources)

    def look(self) -> None:
        """Note the sources whose generators now have another last seed."""
        for source, expected in self.last_seeds.items():
            if source.last_seed() != expected:
                self.reseeded.add(source.name)

    def note_seed(self, name: str, seed: Any) -> None:
        try:
            is_same = operator.index(seed) == self.seed
        except TypeError:  # None for fresh entropy, or an array
            is_same = False
        if not is_same:
            self.reseeded.add(name)


class Watch:
    """Functions of other libraries, which are replaced while a scope is open.

    A scope captures and restores the watch as it does a source. The state is what the block
    has seen, or False outside of all blocks.

    torch's generators know their last seed. Those of Python and NumPy do not, so `random.seed`
    and `np.random.seed` are replaced. A state that `torch.set_rng_state` restores brings its
    own last seed, which is no seed of other code, so this function is replaced too.
    """

    name = "watch"

    def __init__(self) -> None:
        self.is_on: bool = False
        self._seen: Seen | None = None
        # Parallel lists, because `map` then sets all functions in one step: in less time, and
        # Ctrl-C cannot come between.
        self._owners: list[Any] = []
        self._names: list[str] = []
        self._originals: list[Any] = []
        self._replacements: list[Any] = []

    def capture(self) -> Seen | bool:
        return self._seen or False  # None would mean that the watch is absent

    def restore(self, state: Seen | bool) -> None:
        self._seen = state if isinstance(state, Seen) else None
        if self._seen is not None and not self.is_on:
            originals = [*map(getattr, self._owners, self._names)]
            if not originals or originals != self._originals:
                self._replace_anew()  # for the first time, or a user has put his own function there
            self.is_on = True
            _ = [*map(setattr, self._owners, self._names, self._replacements)]
        elif self._seen is None and self.is_on:
            _ = [*map(setattr, self._owners, self._names, self._originals)]
            self.is_on = False

    def restoring(self, restore: F) -> F:
        """Return `restore`, whose states' last seeds are not taken for other code's."""

        def run(*args: Any, **kwargs: Any) -> Any:
            known = {} if self._seen is None else self._seen.last_seeds
            before = _last_seeds(known)
            try:
                return restore(*args, **kwargs)
            finally:
                after = _last_seeds(known)
                # The same seed before and after: other code's seed stays other code's.
                known.update({s: seed for s, seed in after.items() if seed != before.get(s)})

        return run  # type: ignore[return-value]

    @contextmanager
    def expecting_processes(self) -> Iterator[None]:
        """Do not count the processes that are started inside: they seed themselves."""
        seen = self._seen or Seen(None)
        before, seen.expects_processes = seen.expects_processes, True
        try:
            yield
        finally:
            seen.expects_processes = before

    def _replace_anew(self) -> None:
        """Make a replacement for each present function."""
        places: list[tuple[Any, str, Callable[[Any], Any]]] = [
            (random, "seed", self._noting_seed("python")),
            (np.random, "seed", self._noting_seed("numpy")),
            (BaseProcess, "start", self._noting_start),
            *((module, "set_rng_state", self.restoring) for module in _restorers()),
        ]
        self._owners, self._names, makes = map(list, zip(*places, strict=True))
        self._originals = [*map(getattr, self._owners, self._names)]
        made = [make(original) for make, original in zip(makes, self._originals, strict=True)]
        places_of = zip(self._owners, self._names, self._originals, made, strict=True)
        self._replacements = [_in_the_place_of(*place) for place in places_of]

    def _noting_seed(self, source: str) -> Callable[[Any], Any]:
        def make(original: Any) -> Any:
            def seed(*args: Any, **kwargs: Any) -> None:
                original(*args, **kwargs)
                if self._seen is not None:
                    value = args[0] if args else kwargs.get("a", kwargs.get("seed"))
                    self._seen.note_seed(source, value)

            return seed

        return make

    def _noting_start(self, original: Any) -> Any:
        def start(process: BaseProcess) -> None:
            caller = str(sys._getframe(1).f_globals.get("__name__"))
            seen = self._seen
            if seen is not None and not (seen.expects_processes or caller.startswith(_STARTERS)):
                seen.processes += 1
            original(process)

        return start


WATCH = Watch()


def _in_the_place_of(owner: Any, name: str, original: Any, replacement: Any) -> Any:
    """Return the replacement under the name of the function, under which it can be pickled."""
    functools.update_wrapper(replacement, original)
    if not isinstance(owner, type):
        replacement.__module__, replacement.__qualname__ = owner.__name__, name
    replacement._unwatched = original
    return replacement


def _restorers() -> list[Any]:
    """Return the modules where users find torch's function that restores a generator."""
    devices = [device for device in accelerators() if isinstance(device.module, ModuleType)]
    modules = [torch, *(device.module for device in devices if device.is_built)]
    modules += [module.random for module in modules if hasattr(module, "random")]
    return [module for module in modules if hasattr(module, "set_rng_state")]


def _last_seeds(sources: Iterable[Source]) -> dict[Source, Any]:
    return {source: seed for source in sources if (seed := source.last_seed()) is not None}
