"""CuPy's global generators, if CuPy is imported."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

from .base import Source


class CupyState(NamedTuple):
    generators: dict[int, Any]  # one cupy.random.RandomState for each device used so far
    default_seed: str | None


class CuPy(Source):
    """`cupy.random.*` on every device.

    The state of a cuRAND generator cannot be read or saved. So a block gets new generators,
    and the caller's objects are put back unchanged. CuPy creates a device's generator on
    first use, from the documented variable CUPY_SEED; a scope therefore sets the variable
    and initialises no device.

    `_random_states` is private; the public `set_random_state` acts on the current device
    only, and initialises it.

    See: https://docs.cupy.dev/en/stable/reference/environment.html
    """

    name = "cupy"

    def is_running(self) -> bool:
        return _states() is not None

    def capture(self) -> CupyState | None:
        states = _states()
        return None if states is None else CupyState(dict(states), os.environ.get("CUPY_SEED"))

    def seed(self, seed: int) -> None:
        self.restore(CupyState({}, str(seed)))

    def restore(self, state: CupyState) -> None:
        states = _states()
        assert states is not None  # CuPy was imported when the state was captured
        states.clear()
        states.update(state.generators)
        if state.default_seed is None:
            os.environ.pop("CUPY_SEED", None)
        else:
            os.environ["CUPY_SEED"] = state.default_seed

    def encode(self, state: CupyState) -> None:
        return None

    def same(self, a: CupyState, b: CupyState) -> bool:
        # Generators compare by identity: their states cannot be read.
        return a == b


def _states() -> dict[int, Any] | None:
    module = sys.modules.get("cupy.random._generator")
    return None if module is None else module._random_states
