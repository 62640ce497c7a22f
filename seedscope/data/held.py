"""The generators that a dataset, a sampler or a `collate_fn` holds."""

from __future__ import annotations

import itertools
import random
import re
import warnings
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from ..sources.base import Source
from ..sources.generators import KINDS, is_governed
from ..support.remarks import level_of_the_user
from .search import LIMIT, Search, shape

# A class of C with such a name most likely draws random numbers.
_DRAWS = re.compile(r"(Generator|RandomState|Random|RNG|Rng)$")


class Held:
    """The generators that an object holds, each a source.

    Args:
        root: the object.
        name: the first word of each path, such as `dataset`.
        exclude: paths of generators, or of objects that hold them, to leave alone.
        around: what is held elsewhere: a generator that one of them leaves alone is left alone.

    Raises:
        TypeError: `exclude` is not a collection of strings.
        ValueError: a path in `exclude` leads to no generator.
    """

    def __init__(
        self,
        root: Any,
        name: str,
        exclude: Iterable[str] = (),
        around: tuple[Held, ...] = (),
    ) -> None:
        check_paths(exclude)
        self._root, self._name, self._around = root, name, around
        self.exclude: tuple[str, ...] = tuple(exclude)
        self._found: dict[str, tuple[Any, Source]] = {}  # by the last search
        self._sources: tuple[Source, ...] | None = None
        self._problems: dict[str, str] = {}
        self._is_cut = False  # whether the search stopped early
        self._left_alone: list[Any] = []  # the generators that `exclude` leaves out
        excluded = self.look()
        if unknown := [path for path in self.exclude if not any(_is_in(e, path) for e in excluded)]:
            raise ValueError(
                f"exclude has {unknown}, where no generator is; the {name} has generators at "
                f"{[source.name for source in self.sources] + excluded!r:.500}"
            )

    def __getstate__(self) -> dict[str, Any]:
        # Other objects, or another process: search again.
        gone: dict[str, Any] = {"_found": {}, "_sources": None, "_left_alone": [], "_is_cut": False}
        return {**vars(self), **gone}

    @property
    def sources(self) -> tuple[Source, ...]:
        """A source for each generator that the last search has found; its name is the path."""
        if self._sources is None:
            self.look()
        return self._sources or ()

    def names(self) -> list[str]:
        return [source.name for source in self.sources]

    def left_alone(self) -> list[Any]:
        """Return the generators that `exclude` leaves out."""
        _ = self.sources  # after a search
        return self._left_alone

    def has_others(self, used: tuple[Source, ...]) -> bool:
        """Search again, and return whether there are other generators than those of `used`."""
        self.look()
        return self.sources != used

    def look(self) -> list[str]:
        """Search again, and return the paths of the generators that `exclude` leaves out."""
        if self._is_cut:
            return []  # once is enough: the search takes a second
        found: dict[str, tuple[Any, Source]] = {}
        excluded, inside = [], list[Held]()
        problems, left_alone = dict[str, str](), list[Any]()
        search = Search(self._root, self._name, (*KINDS, np.random.SeedSequence, Held, Source))
        for place, thing in search:
            if type(thing) is Held:
                inside.append(thing)
            make = next((KINDS[kind] for kind in KINDS if issubclass(type(thing), kind)), None)
            if make is None and not _draws_unseen(type(thing)):
                continue
            path = place.path()
            if any(_is_in(path, one) for one in self.exclude):
                excluded.append(path)
                left_alone.append(thing)
                continue
            # A generator that was found before keeps its source.
            name = _numbered(path, found)
            known, source = self._found.get(name, (None, None))
            if source is not None and known is thing:
                found[name] = thing, source
            elif problem := _problem(path, thing, make):
                problems[path] = problem
            elif make is not None and not is_governed(thing):
                found[name] = thing, make(name, thing)
        # A dataset inside may leave some alone, too.
        kept = [id(one) for held in (*inside, *self._around) for one in held.left_alone()]
        found = {name: one for name, one in found.items() if id(one[0]) not in kept}
        self._is_cut, self._problems, self._left_alone = not search.is_whole, problems, left_alone
        self._found, self._sources = found, tuple(source for _, source in found.values())
        return excluded

    def warn(self) -> bool:
        """Warn of what cannot be seeded, and return whether there is anything."""
        lines = [f"{path} {problem}" for path, problem in self._problems.items()]
        texts = []
        if lines:
            more = f"; and {len(lines) - 5} more" * (len(lines) > 5)
            text = f"what these draw may depend on the worker: {'; '.join(lines[:5])}{more}."
            if self._name != "sampler":
                first = next(iter(self._problems))
                text += f" exclude=[{first!r}] leaves one alone, without this warning."
            texts.append(text)
        if self._is_cut:
            texts.append(
                f"{self._name} was searched for generators as far as {LIMIT} objects, not further: "
                "what a generator beyond them draws may depend on the worker"
            )
        for text in texts:
            warnings.warn(text, RuntimeWarning, stacklevel=level_of_the_user())
        return bool(texts)


def check_paths(exclude: Any) -> None:
    """Check that `exclude` is a collection of strings."""
    if isinstance(exclude, str) or not all(isinstance(path, str) for path in exclude):
        raise TypeError(f"exclude must be a collection of paths, got {exclude!r:.200}")


def _numbered(path: str, taken: Collection[str]) -> str:
    """Return a name of its own for a generator whose path leads to several."""
    names = (f"{path}#{number}" if number > 1 else path for number in itertools.count(1))
    return next(name for name in names if name not in taken)


def _is_in(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}[", f"{outer}{{"))


def _draws_unseen(kind: type) -> bool:
    """Return whether the objects of a class most likely draw, and have no state to set."""
    if issubclass(kind, np.random.SeedSequence):
        return True
    found = shape(kind)
    return not (found.has_dict or found.slots) and _DRAWS.search(kind.__name__) is not None


def _problem(path: str, thing: Any, make: Any) -> str | None:
    """Return why a generator cannot be seeded, or None."""
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if isinstance(thing, random.SystemRandom):
        return "draws from the operating system (random.SystemRandom)"
    if "{}" in path:
        return f"is in a set, which has no order ({kind})"
    if make is None:
        return f"has no state that can be set ({kind})"
    try:
        make(path, thing).capture()
    except Exception as error:
        return f"cannot be read or seeded ({kind}: {error!r:.200})"
    return None
