"""What a source of random numbers offers to a scope."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch


class Source:
    """A source of random numbers that can be captured, seeded and restored.

    `register_source` takes any object with a `name` and the first three methods;
    deriving from this class is not needed.
    """

    name: str

    def capture(self) -> Any:
        """Return the whole state, without changing it. `None`: the source is not there."""
        raise NotImplementedError

    def seed(self, seed: int) -> None:
        """Put the source into the state that `seed`, in [0, 2**64), stands for."""
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        """Put back a state that `capture` returned, whatever the present one is."""
        raise NotImplementedError

    def resume(self, seed: int, state: Any) -> None:
        """Go on from `state`, where a block of this seed has stopped."""
        self.restore(state)

    def is_running(self) -> bool:
        """Whether `seed` reaches generators now; False where it would have to wait."""
        return True

    def fingerprint(self) -> Any:
        """Return what tells this state from others, as cheaply as it goes.

        The state may move: it is called where a restore comes next.
        """
        return self.capture()

    def encode(self, state: Any) -> Any:
        """Return `state` as numbers, strings, lists, dicts and tensors.

        `None`: it cannot be saved.
        """
        return state

    def decode(self, payload: Any) -> Any:
        """Return the state that `encode` was given; ValueError if it is damaged."""
        return payload

    def same(self, a: Any, b: Any) -> bool:
        """Whether two states are equal."""
        return same_state(a, b)

    def changed(self, a: Any, b: Any) -> list[str]:
        return [] if self.same(a, b) else [self.name]


class ForeignSource(Source):
    """A user's source, with the methods it lacks taken from `Source`."""

    def __init__(self, source: Any) -> None:
        self.name = source.name
        for method in (
            "capture",
            "seed",
            "restore",
            "is_running",
            "fingerprint",
            "encode",
            "decode",
            "same",
        ):
            if callable(getattr(source, method, None)):
                setattr(self, method, getattr(source, method))


def same_state(a: Any, b: Any) -> bool:
    """Whether two states are equal: tensors, arrays and nested containers by content."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_state, a, b))
    return bool(a == b)


def fingerprints(sources: Iterable[Source]) -> dict[Source, Any]:
    return {source: source.fingerprint() for source in sources}
