"""The functions of other libraries that a block notices: they seed a source, start a process."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from .accelerators import accelerators
from .seen import Seen

F = TypeVar("F", bound=Callable[..., Any])
Place = tuple[Any, str, Callable[[Any], Any]]  # an owner, a name, and what makes the replacement

# Modules whose processes need no seed: loaders give one, and a manager's server draws nothing.
_STARTERS = ("torch.utils.data", "torchdata", "multiprocessing.managers")


def unwatched(function: F) -> F:
    """Return the library's own function, for a call that no block shall notice."""
    return getattr(function, "_unwatched", function)


class _Replaced(NamedTuple):
    """Functions and their replacements.

    In parallel lists, because `map` then sets all functions in one step: in less time, and Ctrl-C
    cannot come between.
    """

    owners: list[Any]
    names: list[str]
    originals: list[Any]
    replacements: list[Any]


class Watch:
    """Functions of other libraries, which are replaced while a scope is open.

    A scope captures and restores the watch as it does a source. The state is what the block
    has seen, or False outside of all blocks.
    """

    name = "watch"

    def __init__(self) -> None:
        self.is_on: bool = False
        #: Functions that return more places, of a module that is loaded late.
        self.more: list[Callable[[], list[Place]]] = []
        self._seen: Seen | None = None
        self._replaced = _Replaced([], [], [], [])

    def capture(self) -> Seen | bool:
        return self._seen or False  # None would mean that the watch is absent

    def restore(self, state: Seen | bool) -> None:
        self._seen = state if isinstance(state, Seen) else None
        if self._seen is not None and not self.is_on:
            owners, names, originals, _ = self._replaced
            if not originals or [*map(getattr, owners, names)] != originals:
                # For the first time, or a user has put his own function there.
                self._replaced = self._made_anew()
            self.is_on = True
            owners, names, _, replacements = self._replaced
            _ = [*map(setattr, owners, names, replacements)]
        elif self._seen is None and self.is_on:
            owners, names, originals, replacements = self._replaced
            present = [*map(getattr, owners, names)]
            if present == replacements:
                _ = [*map(setattr, owners, names, originals)]
            else:
                self._put_back(present)
            self.is_on = False

    def saving(self, save: F) -> F:
        """Return `save`, whose result other code may restore."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if self._seen is not None:
                self._seen.note_save()
            return save(*args, **kwargs)

        return run  # type: ignore[return-value]

    def restoring(self, restore: F, names: tuple[str, ...] = ("python", "numpy")) -> F:
        """Return `restore`; the seeds in what it restores are not taken for other code's."""

        def run(*args: Any, **kwargs: Any) -> Any:
            seen = self._seen
            before = {} if seen is None else seen.last_seeds()
            result = restore(*args, **kwargs)
            if seen is not None:
                seen.note_restore(names, before)
            return result

        return run  # type: ignore[return-value]

    @contextmanager
    def expecting_processes(self) -> Iterator[None]:
        """Do not count the processes that are started inside: they seed themselves."""
        seen = self._seen or Seen()
        before, seen.expects_processes = seen.expects_processes, True
        try:
            yield
        finally:
            seen.expects_processes = before

    def _put_back(self, present: list[Any]) -> None:
        """Put back the functions whose replacements are there, but leave a user's function."""
        for owner, name, original, replacement, function in zip(
            *self._replaced, present, strict=True
        ):
            if function is replacement:
                setattr(owner, name, original)

    def _made_anew(self) -> _Replaced:
        """Return a replacement for each present function."""
        of = functools.partial
        places: list[Place] = [
            (random, "seed", self._noting_seed("python")),
            (random, "getstate", self.saving),
            (random, "setstate", of(self.restoring, names=("python",))),
            (np.random, "seed", self._noting_seed("numpy")),
            (np.random, "get_state", self.saving),
            (np.random, "set_state", of(self.restoring, names=("numpy",))),
            (BaseProcess, "start", self._noting_start),
        ]
        for module in _torch_modules():
            places.append((module, "get_rng_state", self.saving))
            places.append((module, "set_rng_state", of(self.restoring, names=())))
        for more in self.more:
            places += more()
        made: dict[Any, Any] = {}  # torch has one function under several names
        for owner, name, make in places:
            # A patch that a user began in a block and ended after it has put our own back.
            original = unwatched(getattr(owner, name))
            if original not in made:
                made[original] = _in_the_place_of(owner, name, original, make(original))
        originals = [unwatched(getattr(owner, name)) for owner, name, _ in places]
        return _Replaced(
            [place[0] for place in places],
            [place[1] for place in places],
            originals,
            [made[original] for original in originals],
        )

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
            original(process)
            seen = self._seen
            if seen is not None and not (seen.expects_processes or caller.startswith(_STARTERS)):
                seen.processes += 1

        return start


WATCH = Watch()


def _in_the_place_of(owner: Any, name: str, original: Any, replacement: Any) -> Any:
    """Return the replacement under the name of the function, under which it can be pickled."""
    functools.update_wrapper(replacement, original)
    if not isinstance(owner, type):
        replacement.__module__, replacement.__qualname__ = owner.__name__, name
    replacement._unwatched = original
    return replacement


def _torch_modules() -> list[Any]:
    """Return the modules where users find torch's functions that save and restore a generator."""
    devices = [device for device in accelerators() if isinstance(device.module, ModuleType)]
    modules = [torch, *(device.module for device in devices if device.is_built)]
    modules += [module.random for module in modules if hasattr(module, "random")]
    return [m for m in modules if hasattr(m, "get_rng_state") and hasattr(m, "set_rng_state")]
