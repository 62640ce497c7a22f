"""Python's `random` module."""

from __future__ import annotations

import math
import random
import struct
from functools import lru_cache
from typing import Any, NamedTuple

from ..support.memory import copy_at, is_addressable, map_at
from ..support.showing import shown
from .base import Source, same_state
from .mersenne import can_go_on
from .watch import unwatched

# struct RandomObject, after the object header: int index; uint32_t state[624].
# https://github.com/python/cpython/blob/main/Modules/_randommodule.c
_LAYOUT = struct.Struct("=I624I")

# The C base class of `random.Random`; the same seed gives both the same state.
_Core: Any = random.Random.__base__


class PythonState(NamedTuple):
    """The state of the generator: raw position and words, and the cached Gaussian."""

    words: bytes
    gauss_next: float | None


class Python(Source):
    """The generator behind the functions of `random`, with its cached Gaussian.

    `random.getstate` and `setstate` box 625 integers (11 us together, and as much again
    for their memory). Copying the generator's memory takes 0.1 us. The layout is checked
    against `getstate` when the source is created. The public calls serve if the check
    fails, or if `random.random` no longer belongs to the generator found then.
    """

    name = "python"

    def __init__(self) -> None:
        self._random = random.random
        self._generator: Any = getattr(self._random, "__self__", None)
        is_known = type(self._generator) is random.Random and layout_is_known()
        self._mapped = map_words(self._generator) if is_known else None
        self._last_seed = -1

    def capture(self) -> PythonState | tuple[Any, ...]:
        memory = self._memory()
        if memory is None:
            return unwatched(random.getstate)()
        return PythonState(memory.tobytes(), self._generator.gauss_next)

    def seed(self, seed: int) -> None:
        again, self._last_seed = seed == self._last_seed, seed
        if again and (memory := self._memory()) is not None:
            memory[:], self._generator.gauss_next = _seeded_words(seed), None
        else:
            unwatched(random.seed)(seed)

    def restore(self, state: PythonState | tuple[Any, ...]) -> None:
        memory = self._memory()
        if memory is None or not isinstance(state, PythonState):
            unwatched(random.setstate)(_public(state))
        else:
            memory[:], self._generator.gauss_next = state

    def fingerprint(self) -> Any:
        memory = self._memory()
        # The position and 128 bits: two states agree there with a probability of 2**-128.
        return unwatched(random.getstate)()[1] if memory is None else memory[:20].tobytes()

    def encode(self, state: PythonState | tuple[Any, ...]) -> dict[str, Any]:
        version, words, gauss_next = _public(state)
        return {"version": version, "words": list(words), "gauss_next": gauss_next}

    def decode(self, payload: Any) -> tuple[Any, ...]:
        version, words = payload["version"], payload["words"]
        scratch = random.Random(0)
        if type(version) is not int or version != scratch.VERSION:
            raise ValueError(f"expected version {scratch.VERSION}, got {shown(version)}")
        if not isinstance(words, (list, tuple)) or len(words) != 625:
            raise ValueError(f"expected a list of 625 words, got {shown(words)}")
        state = (version, tuple(words), payload["gauss_next"])
        scratch.setstate(state)  # refuses some damage, and truncates the rest
        if not same_state(scratch.getstate(), state) or not can_go_on(state[1][:-1]):
            raise ValueError("the state is none that this generator can have")
        gauss = state[2]
        if gauss is not None and not (type(gauss) is float and math.isfinite(gauss)):
            raise ValueError(f"gauss_next must be a finite float or None, got {shown(gauss)}")
        return state

    def same(self, a: Any, b: Any) -> bool:
        return same_state(_public(a), _public(b))

    def _memory(self) -> memoryview | None:
        """Return the bytes of the generator's state, or None if its layout is unknown."""
        return self._mapped if random.random is self._random else None


def _public(state: PythonState | tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the state as `random.setstate` accepts it."""
    if not isinstance(state, PythonState):
        return state
    position, *words = _LAYOUT.unpack(state.words)
    return (random.Random.VERSION, (*words, position), state.gauss_next)


@lru_cache(maxsize=1)
def _seeded_words(seed: int) -> bytes:
    """Return the words that `random.seed(seed)` produces. The cache holds one seed."""
    core = _Core(seed)
    return copy_at(_address(core), _LAYOUT.size)


def _address(generator: Any) -> int:
    return id(generator) + object.__basicsize__


def map_words(generator: Any) -> memoryview:
    """Return the memory of a generator's position and words."""
    return map_at(generator, _address(generator), _LAYOUT.size)


def layout_is_known() -> bool:
    """Return whether reads and writes of a generator's memory agree with its public state."""
    if not is_addressable() or _Core.__basicsize__ < object.__basicsize__ + _LAYOUT.size:
        return False
    one, other = random.Random(1029), random.Random(5)
    one.random()
    words = map_words(one).tobytes()
    map_words(other)[:] = words
    seeded = PythonState(_seeded_words(2**40 + 7), None)
    return (
        _public(PythonState(words, None)) == one.getstate() == other.getstate()
        and _public(seeded) == random.Random(2**40 + 7).getstate()
    )
