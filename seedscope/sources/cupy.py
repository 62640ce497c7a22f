"""CuPy's global generators, where CuPy is imported."""

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

    The state inside a cuRAND generator cannot be read, so a block gets generators of
    its own and the caller's objects come back untouched. CuPy makes a device's
    generator on first use, from the documented variable CUPY_SEED: so none is
    made here and no device is initialised. A state cannot be saved to a file.

    `_random_states` is private; the public `set_random_state` reaches the current
    device alone and would initialise it.

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
        assert states is not None  # it was there when the state was captured
        states.clear()
        states.update(state.generators)
        if state.default_seed is None:
            os.environ.pop("CUPY_SEED", None)
        else:
            os.environ["CUPY_SEED"] = state.default_seed

    def encode(self, state: CupyState) -> None:
        return None

    def same(self, a: CupyState, b: CupyState) -> bool:
        # By identity: the state inside a generator cannot be read.
        return a == b


def _states() -> dict[int, Any] | None:
    module = sys.modules.get("cupy.random._generator")
    return None if module is None else module._random_states
