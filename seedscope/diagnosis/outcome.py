"""What a function returned, leaf by leaf, to compare it bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from .contents import digest_of, has_content

_DEEPEST = 30
_VALUES = (bool, int, float, complex, str, bytes, type(None))


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
    if isinstance(value, (list, tuple)):
        yield f"len({path})", len(value)
    for name, part in parts:
        yield from _leaves(path + name, part, depth + 1)


def _parts(value: Any) -> Iterable[tuple[str, Any]] | None:
    """Return the parts of a value with their names; None of a leaf."""
    if isinstance(value, nn.Module):
        grads = {name: one.grad for name, one in value.named_parameters()}
        return [("", value.state_dict()), (".grad", grads)]
    if isinstance(value, type):
        return None
    if callable(getattr(value, "state_dict", None)):
        return [("", value.state_dict())]
    if isinstance(value, Mapping):
        return [(f"[{key!r:.60}]", one) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{number}]", one) for number, one in enumerate(value)]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return [(f".{name}", getattr(value, name, None)) for name in names]
    if _has_plain_attributes(value):
        return [(f".{name}", one) for name, one in vars(value).items()]
    return None


def _has_plain_attributes(value: Any) -> bool:
    """Return whether what an object of Python holds is in its attributes."""
    others = (ModuleType, FunctionType, Tensor, np.ndarray, np.generic, PurePath, set, frozenset)
    is_other = isinstance(value, others)
    return not is_other and bool(getattr(value, "__dict__", None))


def _digest(leaf: Any) -> tuple[Any, str] | None:
    if isinstance(leaf, Tensor):
        found = digest_of([leaf])
        if not found and has_content(leaf):
            return None
        form = f"a tensor of {leaf.dtype}, shape {[*leaf.shape]}"
        return found, f"{leaf.item()!r}" if leaf.numel() == 1 and leaf.is_floating_point() else form
    if isinstance(leaf, (np.ndarray, np.generic)) and not leaf.dtype.hasobject:
        text = f"{leaf.dtype}{leaf.shape}".encode()
        sha = hashlib.sha1(text + leaf.tobytes(), usedforsecurity=False)
        return sha.digest(), repr(
            leaf
        ) if leaf.size == 1 else f"an array of {leaf.dtype}, {leaf.shape}"
    if isinstance(leaf, PurePath):
        leaf = str(leaf)
    elif isinstance(leaf, (set, frozenset)) and all(isinstance(one, _VALUES) for one in leaf):
        leaf = repr(sorted(leaf, key=repr))
    if isinstance(leaf, _VALUES):
        return (type(leaf).__name__, repr(leaf)), f"{leaf!r:.100}"
    return None
