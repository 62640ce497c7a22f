"""Everything that an object refers to, with the path that leads there."""

from __future__ import annotations

import functools
import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from logging import Logger
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from .functions import (
    OWN,
    Found,
    Place,
    closure,
    is_installed,
    module_attributes,
    named,
    named_globals,
    package_of,
)

LIMIT = 100_000  # objects
_LONG = 1_000  # items

# What refers to no generator. A plain array or tensor is numbers alone.
_SCALARS = (
    *(NoneType, bool, int, float, complex, str, bytes, bytearray, range, slice, type(...)),
    *(PurePath, Logger, CodeType, np.generic, np.dtype),
    *(torch.Tensor, torch.dtype, torch.device, torch.layout),
    *(GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType),
)

_CONTAINERS = (dict, list, tuple, deque, set, frozenset)

# Where an object that is no container and has no attributes refers to another one.
_PARTS: dict[type, tuple[str, ...]] = {
    MethodType: ("__self__", "__func__"),
    BuiltinFunctionType: ("__self__",),
    functools.partial: ("func", "args", "keywords"),
    functools.partialmethod: ("func", "args", "keywords"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget",),
}


class Shape(NamedTuple):
    """What the class of an object says of where the object refers to others.

    Attributes:
        is_scalar: whether the object refers to nothing.
        container: the class of containers that it is derived from.
        slots: the descriptors of its slots, by name.
        has_dict: whether it can have attributes besides.
    """

    is_scalar: bool
    container: Any
    slots: dict[str, Any]
    has_dict: bool


class Search:
    """The objects that `root` refers to, directly or not, each with the first place of it.

    The search looks into attributes, slots and class attributes, into dicts, lists, tuples,
    sets, deques and arrays of objects, into closures, defaults and partials, into modules of the
    user, and at the globals that functions name or import. It does not look into what Python,
    NumPy and torch have, nor at the globals of functions of installed libraries, besides that of
    the root's class. It calls no code of what it finds.

    Args:
        root: the object to begin at.
        name: the first word of each path.
        leaves: the classes whose objects are not looked into, besides what a user's subclass adds.
        with_scalars: whether to yield numbers, strings and tensors too, at each of their places.

    Attributes:
        is_whole: whether the search came to its end; it stops at 100,000 objects.
    """

    def __init__(
        self, root: Any, name: str, leaves: tuple[type, ...] = (), with_scalars: bool = False
    ) -> None:
        self.is_whole: bool = True
        self._with_scalars = with_scalars
        self._root, self._name, self._leaves = root, name, leaves
        self._library = package_of(type(root))
        self._nearer: deque[Iterable[Found]] = deque()
        self._later: deque[Iterable[Found]] = deque()

    def __iter__(self) -> Iterator[Found]:
        """Yield (place, object), the nearest first; a long container's items come last."""
        self._nearer.append([(Place(None, "{}", self._name), self._root)])
        seen: dict[int, Any] = {}  # with the objects, so that no other one gets an id of theirs
        while self._nearer or self._later:
            for place, thing in (self._nearer or self._later).popleft():
                if is_scalar(thing):
                    if self._with_scalars:
                        yield place, thing
                    continue
                if id(thing) in seen:
                    continue
                if len(seen) >= LIMIT:
                    self.is_whole = False
                    return
                seen[id(thing)] = thing
                yield place, thing
                if not issubclass(type(thing), self._leaves):
                    self._look_into(place, thing)
                elif package_of(type(thing)) not in OWN:  # it may hold others
                    self._nearer.append(_inside(place, thing))

    def _look_into(self, place: Place, thing: Any) -> None:
        """Leave a long container to the end; leave it out if its items are plain.

        Each look at an item writes to its memory, which a worker then no longer shares with its
        parent. So a hundred of the items stand for all of them.
        """
        container = shape(type(thing)).container
        if container is None or container.__len__(thing) <= _LONG:
            self._nearer.append(self._referents(place, thing))
        elif not all(map(is_plain, _sample(thing))):
            self._later.append(self._referents(place, thing))

    def _referents(self, place: Place, thing: Any) -> Iterator[Found]:
        if issubclass(type(thing), type):
            if package_of(thing) not in OWN:
                yield from self._class_attributes(place, thing)
                yield from ((place, base) for base in thing.__bases__)
        elif type(thing) is FunctionType:
            yield from closure(place, thing)
            if not self._is_foreign(thing):
                yield from named_globals(thing)
        elif issubclass(type(thing), ModuleType):
            yield from module_attributes(thing)
        elif (parts := _PARTS.get(type(thing))) is not None:
            yield from ((Place(place, ".{}", part), getattr(thing, part)) for part in parts)
        else:
            yield from _inside(place, thing)
            yield place, type(thing)

    def _class_attributes(self, place: Place, kind: type) -> Iterator[Found]:
        """Yield the attributes of a class; without functions and classes of another library."""
        left_out = (FunctionType, staticmethod, classmethod, type) * self._is_foreign(kind)
        for name, value in [*vars(kind).items()]:
            is_of_python = name.startswith("__") and type(value) is not FunctionType
            if not (is_of_python or issubclass(type(value), left_out)):
                yield Place(place, ".{}", name), value

    def _is_foreign(self, thing: Any) -> bool:
        """Return whether a class or a function belongs to a library, but not the root's."""
        package = package_of(thing)
        return package in OWN or (package != self._library and is_installed(package))


def is_scalar(thing: Any) -> bool:
    """Return whether an object refers to no other one that could be a generator."""
    kind = type(thing)
    return shape(kind).is_scalar or (kind is np.ndarray and not thing.dtype.hasobject)


def _shape(kind: type) -> Shape:
    # By the true class: isinstance would ask a proxy, and load what is behind it.
    base = next((base for base in _CONTAINERS if issubclass(kind, base)), None)
    classes = [one for one in kind.__mro__ if "__slots__" in vars(one)]
    members = [(name, slot) for one in classes for name, slot in vars(one).items()]
    slots = {name: slot for name, slot in members if isinstance(slot, MemberDescriptorType)}
    return Shape(issubclass(kind, _SCALARS), base, slots, kind.__dictoffset__ != 0)


# mypy takes no class for a key.
shape: Callable[[type], Shape] = cast(
    "Callable[[type], Shape]", functools.lru_cache(maxsize=4096)(_shape)
)


def is_plain(thing: Any, depth: int = 3) -> bool:
    """Return whether a thing is a scalar, or a short container of scalars."""
    if is_scalar(thing):
        return True
    found = shape(type(thing))
    is_container = type(thing) in _CONTAINERS or (found.container is tuple and not found.has_dict)
    if not depth or not is_container or found.container.__len__(thing) > 100:
        return False
    return all(is_plain(item, depth - 1) for item in _values(thing))


def _values(container: Any) -> Iterable[Any]:
    """Return the items of a container, past what its own class has in place of `__iter__`."""
    base = shape(type(container)).container
    values: Iterable[Any] = dict.values(container) if base is dict else base.__iter__(container)
    return values


def _sample(container: Any) -> Iterable[Any]:
    """Return a hundred items: from everywhere if they are numbered, else the first ones."""
    base = shape(type(container)).container
    if base in (list, tuple, deque):
        size = base.__len__(container)
        return [base.__getitem__(container, i) for i in range(0, size, size // 100)]
    return islice(_values(container), 100)


def _inside(place: Place, thing: Any) -> Iterator[Found]:
    """Yield the items, the attributes and the slots, past any `__getattr__` of the object."""
    found = shape(type(thing))
    if found.container is dict:
        items = [*islice(dict.items(thing), LIMIT)]
        yield from ((Place(place, "[{!r}]", _key(k)), v) for k, v in items)
        keys = ((i, k) for i, (k, _) in enumerate(items) if not is_plain(k))
        yield from ((Place(place, ".<key {}>", i), k) for i, k in keys)
    elif found.container in (set, frozenset):
        # A set has no order that another process shares: its items have one path.
        yield from ((Place(place, "{}", "{}"), item) for item in [*_values(thing)])
    elif found.container is not None:
        values = [*islice(_values(thing), LIMIT)]
        yield from ((Place(place, "[{}]", i), v) for i, v in enumerate(values))
    try:
        attributes = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        attributes = None
    if isinstance(attributes, dict):
        yield from named(place, attributes)
    for name, slot in found.slots.items():
        try:
            yield Place(place, ".{}", name), slot.__get__(thing)
        except AttributeError:  # not assigned yet
            continue
    if attributes is None and found.container is None:
        yield from _of_c(place, thing)


def _of_c(place: Place, thing: Any) -> Iterator[Found]:
    """Yield what an array of objects, an iterator, a proxy, or another object of C refers to."""
    if issubclass(type(thing), np.ndarray):
        step = max(1, thing.size // 100)
        sample = [np.ndarray.item(thing, i) for i in range(0, thing.size, step)]
        if not all(map(is_plain, sample)):
            yield Place(place, "{}", ".flat"), np.ndarray.ravel(thing).tolist()
        return
    yield from ((Place(place, ".<{}>", i), v) for i, v in enumerate(gc.get_referents(thing)))


def _key(key: Any) -> Any:
    """Return the key of a dict as a path shows it."""
    return key if type(key) in (str, int, bool, NoneType) else f"a {type(key).__name__}"
