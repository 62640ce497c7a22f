"""The interface between a scope and a source of random numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from types import FunctionType
from typing import Any

import numpy as np
import torch

from ..support.showing import shown


class Source:
    """A source of random numbers that can be captured, seeded and restored.

    `register_source` accepts any object with a `name` and the first three methods;
    deriving from this class is optional.
    """

    name: str

    def capture(self) -> Any:
        """Return the whole state without changing it, or `None` if the source is absent."""
        raise NotImplementedError

    def seed(self, seed: int) -> None:
        """Put the source into the state that is determined by `seed`, in [0, 2**64)."""
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        """Restore a state that `capture` returned, whatever the present state is."""
        raise NotImplementedError

    def resume(self, seed: int, state: Any) -> None:
        """Continue from `state`, in which an earlier block with this seed ended."""
        self.restore(state)

    def is_running(self) -> bool:
        """Return whether `seed` acts on generators now, not only once they exist."""
        return True

    def fingerprint(self) -> Any:
        """Return a value that differs between states, as cheaply as possible.

        The call may change the state: a restore follows it.
        """
        return self.capture()

    def last_seeds(self) -> list[int]:
        """Return the seed with which each generator was last seeded, if the generators know it.

        A scope then tells whether other code has seeded the source.
        """
        return []

    def encode(self, state: Any) -> Any:
        """Return `state` as numbers, strings, lists, dicts and tensors.

        Return `None` if the state cannot be saved.
        """
        return state

    def decode(self, payload: Any) -> Any:
        """Return the state from which `encode` made `payload`, and keep nothing of `payload`.

        Raises:
            ValueError: the payload is damaged.
        """
        return copy.deepcopy(payload)

    def same(self, a: Any, b: Any) -> bool:
        """Return whether two states, or two fingerprints, are equal."""
        return same_state(a, b)

    def changed(self, a: Any, b: Any) -> list[str]:
        """Return the names of what differs between two states: this source's, or none."""
        return [] if self.same(a, b) else [self.name]


class ForeignSource(Source):
    """A user's source; `Source` supplies the optional methods that the user's object lacks."""

    def __init__(self, source: Any) -> None:
        self.name: str = source.name
        for name, method in vars(Source).items():
            if isinstance(method, FunctionType) and callable(getattr(source, name, None)):
                setattr(self, name, getattr(source, name))


def same_state(a: Any, b: Any) -> bool:
    """Return whether two states are equal; compare tensors, arrays, containers by content."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and _equal_tensors(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        has_bytes = not a.dtype.hasobject
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and (a.tobytes() == b.tobytes() if has_bytes else np.array_equal(a, b))
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        if {*map(type, a), *map(type, b)} == {int}:  # the words of a generator
            return bool(a == b)
        return len(a) == len(b) and all(map(same_state, a, b))
    return bool(a == b) or bool(a != a and b != b)  # NaN


def _equal_tensors(a: torch.Tensor, b: torch.Tensor) -> bool:
    if torch.equal(a, b):
        return True
    has_nan = a.is_floating_point() or a.is_complex()
    return has_nan and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def decoded_bytes(payload: Any, size: int | None) -> torch.Tensor:
    """Return a copy of the saved state of one torch generator.

    Args:
        payload: what was saved.
        size: the number of bytes; None if only the device itself knows it.

    Raises:
        ValueError: `torch.Generator.set_state` would refuse the form of `payload`.
    """
    if not isinstance(payload, torch.Tensor):
        raise ValueError(f"expected a tensor of bytes, got {shown(payload)}")
    is_plain = payload.layout is torch.strided and payload.device.type == "cpu"
    is_right = payload.dtype == torch.uint8 and payload.ndim == 1 and payload.numel() > 0
    # A tensor that repeats its memory would grow as it is copied.
    if not (is_plain and is_right and payload.is_contiguous()):
        form = f"{payload.dtype}, {[*payload.shape]}, {payload.layout}, on {payload.device}"
        raise ValueError(f"expected a contiguous vector of uint8 on the CPU, got {form}")
    if size is not None and payload.numel() != size:
        raise ValueError(f"expected {size} bytes, got {payload.numel()}")
    return payload.detach().clone()


def fingerprints(sources: Iterable[Source]) -> dict[Source, Any]:
    return {source: source.fingerprint() for source in sources}
