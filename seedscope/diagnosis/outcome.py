"""What a function returned, leaf by leaf, to compare it bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..support.kinds import is_a
from ..support.showing import shown
from .contents import VALUES, array_digest, digest_of, has_content, is_lazy

_DEEPEST = 30


class Outcome:
    """The digest and a short form of each leaf of a result, and of what was restored before.

    Args:
        result: what the function returned.
        restored: what was put back before the run, as the run has left it.

    Attributes:
        leaves: (digest, form) by path; the path of the result itself is `result`.
        uncompared: the types of what has no bits to compare.
    """

    def __init__(self, result: Any, restored: Iterable[Any] = ()) -> None:
        self.leaves: dict[str, tuple[Any, str]] = {}
        self.uncompared: set[str] = set()
        things = {"result": result, **{f"restore[{i}]": one for i, one in enumerate(restored)}}
        for path, leaf in (leaf for name, one in things.items() for leaf in _leaves(name, one, 0)):
            found = _digest(leaf)
            if found is not None:
                self.leaves[path] = found
            elif path not in things or path == "result":
                self.uncompared.add(f"{type(leaf).__module__}.{type(leaf).__qualname__}")

    def first_difference(self, other: Outcome) -> tuple[str, str, str] | None:
        """Return the path of the first leaf that differs, and both forms; None if none does."""
        for path in {**self.leaves, **other.leaves}:
            one, two = (each.leaves.get(path, (None, "(absent)")) for each in (self, other))
            if one[0] != two[0]:
                return path, one[1], two[1]
        return None


def _leaves(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) of all that a value holds; of what holds itself, down to a depth."""
    parts = None if depth > _DEEPEST else _parts(value)
    if parts is None:
        yield path, value
        return
    names = [name for name, _ in parts]
    if is_a(value, (list, tuple, Mapping)):
        yield f"the form of {path}", f"{type(value).__name__} of {names}"
    for name, part in parts:
        yield from _leaves(path + name, part, depth + 1)


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """Return the parts of a value with their names; None of a leaf."""
    kind = type(value)
    if issubclass(kind, nn.Module):
        grads = {name: one.grad for name, one in value.named_parameters()}
        return [("", value.state_dict()), (".grad", grads)]
    if issubclass(kind, type):
        return None
    if callable(getattr(kind, "state_dict", None)):
        return [("", value.state_dict())]
    if issubclass(kind, Mapping):
        return [(f"[{_key(key, n)}]", one) for n, (key, one) in enumerate(value.items())]
    if issubclass(kind, (list, tuple)):
        return [(f"[{number}]", one) for number, one in enumerate(value)]
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return [(f".{name}", getattr(value, name, None)) for name in names]
    if _has_plain_attributes(value):
        return [(f".{name}", one) for name, one in vars(value).items()]
    return None


def _key(key: Any, number: int) -> str:
    """Return the key of a dict as a path shows it; an object's own form may have its address."""
    is_plain = type(key) in (str, bool, float, type(None)) or is_a(key, int)
    return f"{key!r}" if is_plain else f"{type(key).__name__} {number}"


def _has_plain_attributes(value: Any) -> bool:
    """Return whether what an object of Python holds is in its attributes."""
    others = (ModuleType, FunctionType, Tensor, np.ndarray, np.generic, PurePath, set, frozenset)
    is_other = is_a(value, others)
    return not is_other and bool(getattr(value, "__dict__", None))


def _digest(leaf: Any) -> tuple[Any, str] | None:
    """Return what tells two leaves apart, and a short form; None if there are no bits to read."""
    if is_a(leaf, Tensor):
        found = digest_of([leaf])
        form = f"{type(leaf).__name__} of {leaf.dtype}"
        if not (is_lazy(leaf) or leaf.is_nested):
            form += f", shape {[*leaf.shape]}"
        if not has_content(leaf):
            return form, form
        if not found:
            return None
        is_number = leaf.numel() == 1 and leaf.is_floating_point()
        return found, repr(leaf.item()) if is_number else form
    if is_a(leaf, (np.ndarray, np.generic)) and not leaf.dtype.hasobject:
        form = repr(leaf) if leaf.size == 1 else f"an array of {leaf.dtype}, {leaf.shape}"
        return array_digest(leaf), form
    if is_a(leaf, PurePath):
        leaf = str(leaf)
    elif is_a(leaf, (set, frozenset)) and all(is_a(one, VALUES) for one in leaf):
        leaf = repr(sorted(leaf, key=repr))
    if type(leaf) in VALUES:
        # Python refuses to write a number of more than 4300 digits.
        text = hex(leaf) if type(leaf) is int else repr(leaf)
        return (type(leaf).__name__, text), shown(leaf)
    if is_a(leaf, VALUES):
        return type(leaf).__name__, f"a {type(leaf).__name__}"
    return None
