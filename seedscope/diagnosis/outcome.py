"""What a function returned, leaf by leaf, to compare it bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from .contents import digest_of, has_content

_VALUES = (bool, int, float, complex, str, bytes, type(None))


class Outcome:
    """The digest and a short form of each leaf of a result.

    Attributes:
        leaves: (digest, form) by path; the path of the result itself is `result`.
        uncompared: the types of what has no bits to compare.
    """

    def __init__(self, result: Any) -> None:
        self.leaves: dict[str, tuple[Any, str]] = {}
        self.uncompared: set[str] = set()
        for path, leaf in _leaves("result", result, 0):
            found = _digest(leaf)
            if found is None:
                self.uncompared.add(f"{type(leaf).__module__}.{type(leaf).__qualname__}")
            else:
                self.leaves[path] = found

    def first_difference(self, other: Outcome) -> tuple[str, str, str] | None:
        """Return the path of the first leaf that differs, and both forms; None if none does."""
        for path in {**self.leaves, **other.leaves}:
            one, two = (each.leaves.get(path, (None, "(absent)")) for each in (self, other))
            if one[0] != two[0]:
                return path, one[1], two[1]
        return None


def _leaves(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > 50:
        yield path, object()  # one that holds itself
    elif isinstance(value, nn.Module):
        yield from _leaves(path, value.state_dict(), depth + 1)
        grads = {name: one.grad for name, one in value.named_parameters()}
        yield from _leaves(f"{path}.grad", grads, depth + 1)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(f"{path}[{key!r:.60}]", one, depth + 1)
    elif isinstance(value, (list, tuple)):
        yield path, len(value)
        for number, one in enumerate(value):
            yield from _leaves(f"{path}[{number}]", one, depth + 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _leaves(f"{path}.{field.name}", getattr(value, field.name), depth + 1)
    else:
        yield path, value


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
    if isinstance(leaf, _VALUES):
        return (type(leaf).__name__, repr(leaf)), f"{leaf!r:.100}"
    return None
