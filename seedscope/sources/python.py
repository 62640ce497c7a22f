"""Python's `random` module."""

from __future__ import annotations

import random
from typing import Any

from .base import Source


class Python(Source):
    """The generator behind `random.random()` and its siblings, with a cached Gaussian."""

    name = "python"

    def capture(self) -> tuple[Any, ...]:
        return random.getstate()

    def seed(self, seed: int) -> None:
        random.seed(seed)

    def restore(self, state: tuple[Any, ...]) -> None:
        random.setstate(state)

    def fingerprint(self) -> int:
        return random.getrandbits(128)  # 0.1 us; getstate() boxes 625 integers in 9

    def encode(self, state: tuple[Any, ...]) -> dict[str, Any]:
        version, words, gauss_next = state
        return {"version": version, "words": list(words), "gauss_next": gauss_next}

    def decode(self, payload: Any) -> tuple[Any, ...]:
        state = (payload["version"], tuple(payload["words"]), payload["gauss_next"])
        random.Random(0).setstate(state)  # a scratch generator refuses a damaged state
        if not isinstance(state[2], (float, type(None))):
            raise ValueError(f"gauss_next must be a float or None, got {state[2]!r}")
        return state
