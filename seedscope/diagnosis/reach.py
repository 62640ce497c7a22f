"""What a function can reach, and which of it has changed between the starts of two runs."""

from __future__ import annotations

import functools
import itertools
import operator
import re
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data.dataloader import _BaseDataLoaderIter

from ..data.functions import Place
from ..data.search import Search
from ..sources.base import Source
from ..sources.generators import KINDS, is_governed
from ..support.kinds import is_a
from ..support.showing import shown
from ..support.torch_internals import compiled_graphs
from .contents import VALUES, array_digest, digest_of, has_content, is_lazy
from .keeping import can_keep
from .memory import storage_id, storage_of
from .modes import read_modes
from .outcome import Outcome

_ITERATORS = ("builtins", "itertools")


@dataclass
class Reached:
    """What a function could reach at one moment.

    Attributes:
        marks: a text or number for each value that may differ from run to run, by its path.
        storages: a weak reference and the path of each storage, by its `id`.
        modules: the path of each module and optimizer, by its `id`.
        generators: a source for each generator that no scope governs, by its path.
        holders: what could be restored to put a path back: the path and the thing.
        lazy: the paths of modules whose parameters are not initialised.
        is_whole: whether the look came to its end.
    """

    marks: dict[str, Any] = field(default_factory=dict)
    storages: dict[int, tuple[Any, str]] = field(default_factory=dict)
    modules: dict[int, str] = field(default_factory=dict)
    generators: dict[str, Source] = field(default_factory=dict)
    holders: dict[str, tuple[str, Any]] = field(default_factory=dict)
    lazy: list[str] = field(default_factory=list)
    is_whole: bool = True

    def hold(self, tensor: Tensor, path: str) -> None:
        if (storage := storage_of(tensor)) is not None:
            self.storages.setdefault(id(storage), (weakref.ref(storage), path))

    def path_of(self, tensor: Tensor) -> str | None:
        """Return where the function held the memory of a tensor, if it did."""
        storage = storage_of(tensor)
        reference, path = self.storages.get(id(storage), (None, None))
        return path if storage is not None and reference and reference() is storage else None

    def name_of(self, owner: Any) -> str:
        """Return the path of a module or an optimizer, and its class."""
        kind = type(owner).__name__
        path = self.modules.get(id(owner))
        return kind if path is None else f"{path} ({kind})"

    def changed(self, later: Reached) -> dict[str, tuple[Any, Any]]:
        """Return (before, after) for each path whose mark differs; None where there is none."""
        return {
            path: (self.marks.get(path), later.marks.get(path))
            for path in {**self.marks, **later.marks}
            if self.marks.get(path, _ABSENT) != later.marks.get(path, _ABSENT)
        }


_ABSENT = object()


def reach(function: Any, arguments: dict[str, Any], restored: set[int]) -> Reached:
    """Look at all that a function with these arguments refers to.

    Args:
        function: the function.
        arguments: its arguments by name.
        restored: the storages whose content is put back before each run, by `id`.
    """
    found = Reached()
    name = getattr(function, "__name__", type(function).__name__)
    root = {**arguments, f"{name}()": function}
    leaves = (Tensor, *KINDS, functools._lru_cache_wrapper, _BaseDataLoaderIter)
    things: dict[int, tuple[str, Any]] = {}  # by the id of a place: what is there
    kept: list[Place] = []  # so that no other place gets the id of one
    tensors = set[int]()
    found.marks |= {name: f"{value}" for name, value in read_modes().items()}
    found.marks["graphs of torch.compile"] = f"{compiled_graphs()}"
    search = Search(root, "", leaves, with_scalars=True)
    for place, thing in search:
        if is_a(thing, Tensor):
            if id(thing) in tensors:
                continue  # an optimizer has those of the model
            tensors.add(id(thing))
        path = _readable(place.path())
        if ".dynamo_ctx" in path or "._inner_convert" in path:
            continue  # what the compiler keeps
        kept.append(place)
        things.setdefault(id(place), (path, thing))  # its class comes later, at the same place
        mark = _mark(thing, path, found, restored)
        if mark is not None:
            path = _numbered(path, found.marks)
            found.marks[path] = mark
            holder = _holder(place, things)
            if any(thing is argument for argument in arguments.values()):
                holder = path, thing
            if holder is not None:
                found.holders[path] = holder
        _note(thing, path, found)
        if is_a(thing, Tensor) and has_content(thing) and thing.is_leaf and thing.grad is not None:
            found.marks[f"{path}.grad"] = _tensor_mark(thing.grad, restored)
            found.hold(thing.grad, f"{path}.grad")
            if path in found.holders:
                found.holders[f"{path}.grad"] = found.holders[path]
    found.is_whole = search.is_whole
    return found


def _note(thing: Any, path: str, found: Reached) -> None:
    if is_a(thing, Tensor) and has_content(thing):
        found.hold(thing, path)
    elif is_a(thing, (nn.Module, torch.optim.Optimizer)):
        found.modules.setdefault(id(thing), path)
        own = thing.parameters(recurse=False) if is_a(thing, nn.Module) else ()
        if any(is_lazy(one) for one in own):
            found.lazy.append(path)


def _mark(thing: Any, path: str, found: Reached, restored: set[int]) -> Any:
    """Return what tells whether a thing has changed; None for what is judged by its parts."""
    if is_a(thing, Tensor):
        return _tensor_mark(thing, restored) if has_content(thing) else None
    for kind, make in KINDS.items():
        if is_a(thing, kind):
            return None if is_governed(thing) else _generator_mark(make, thing, path, found)
    if type(thing) is np.ndarray and not thing.dtype.hasobject:
        return (array_digest(thing),)
    return _plain_mark(thing)


def _plain_mark(thing: Any) -> Any:
    """Return what tells whether a number, a text, a cache or an iterator has changed."""
    if is_a(thing, VALUES):
        text = shown(thing)
        return text if len(text) < 60 else (text, hash(thing))
    if is_a(thing, _BaseDataLoaderIter):
        return "an iterator that the loader keeps"
    if is_a(thing, functools._lru_cache_wrapper):
        info = thing.cache_info()
        return f"{info.currsize} cached, {info.misses} misses"
    if is_a(thing, types.GeneratorType):
        return None if thing.gi_frame is None else thing.gi_frame.f_lasti
    if is_a(thing, itertools.count):
        return repr(thing)
    if is_a(thing, Iterator) and type(thing).__module__ in _ITERATORS:
        return operator.length_hint(thing, -1)
    return None


def _generator_mark(make: Any, thing: Any, path: str, found: Reached) -> Any:
    try:
        source = make(path, thing)
        mark = Outcome(source.capture()).leaves
    except Exception:  # one that has no state to read, such as SystemRandom: others tell of it
        return None
    found.generators[path] = source
    return mark


def _tensor_mark(tensor: Tensor, restored: set[int]) -> Any:
    return None if storage_id(tensor) in restored else digest_of([tensor])


def _holder(place: Place, things: dict[int, tuple[str, Any]]) -> tuple[str, Any] | None:
    """Return the outermost thing around a place that can be restored."""
    outermost = None
    at: Place | None = place
    while at is not None:
        found = things.get(id(at))
        if found is not None and can_keep(found[1]):
            outermost = found
        at = at.before
    return outermost


_FORMS = (
    (re.compile(r"^\['([^']*)'\]"), r"\1"),
    (re.compile(r"\._(?:modules|parameters|buffers)\['([^']*)'\]"), r".\1"),
    (re.compile(r"\['a (\w+)'\]"), r"[a \1]"),
    (re.compile(r"\(\)\.<(\w+)>"), r"():\1"),
)


def _readable(path: str) -> str:
    """Return a path as a user would write it: `model.bn.running_mean`."""
    for pattern, form in _FORMS:
        path = pattern.sub(form, path)
    return path


def _numbered(path: str, taken: dict[str, Any]) -> str:
    number, name = 1, path
    while name in taken:
        number += 1
        name = f"{path}#{number}"
    return name
