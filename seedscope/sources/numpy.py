"""NumPy's global generator, `np.random`."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..support.interrupts import in_one_step
from ..support.memory import copy_at, is_addressable, map_at
from ..support.showing import shown
from .base import Source, same_state
from .mersenne import can_go_on
from .watch import unwatched

# struct mt19937_state: uint32 key[624]; int pos.
# https://github.com/numpy/numpy/blob/main/numpy/random/src/mt19937/mt19937.h
_WORDS_BYTES = 625 * 4

# The last fields of struct aug_bitgen: int has_gauss; double gauss.
# https://github.com/numpy/numpy/blob/main/numpy/random/src/legacy/legacy-distributions.h
_GAUSS = struct.Struct("=i4xd")
_NO_GAUSS = _GAUSS.pack(0, 0.0)

_ALL = slice(None)


class NumpyState(NamedTuple):
    """The state of NumPy's global generator.

    Attributes:
        generator: the bit generator itself; None in a state from a state_dict.
        words: the raw bytes of an MT19937, or the public state dict of any bit generator.
        gauss: the raw bytes of the cached second Gaussian, beside raw `words`.
    """

    generator: Any
    words: bytes | dict[str, Any]
    gauss: bytes = _NO_GAUSS


class Memory:
    """The memory of an MT19937 and of the Gaussian that its `RandomState` has cached.

    NumPy holds the generator's lock while it draws, even while it releases the GIL to fill
    an array. Each method here holds the lock too, and acquires and releases it in one
    step: Ctrl-C cannot leave it locked.
    """

    def __init__(self, generator: Any, gauss: memoryview | None = None) -> None:
        gauss = memoryview(bytearray(_NO_GAUSS)) if gauss is None else gauss
        self.generator: Any = generator
        words = map_at(generator, generator.ctypes.state_address, _WORDS_BYTES)
        self._set_words, self._set_gauss = words.__setitem__, gauss.__setitem__
        self._acquire, self._release = generator.lock.acquire, generator.lock.release
        self._reading = self._acquire, words.tobytes, gauss.tobytes, self._release
        # The position and 128 bits: two states agree there with a probability of 2**-128.
        self.fingerprint: Callable[[], bytes] = words[-20:].tobytes

    def read(self) -> NumpyState:
        _, words, gauss, _ = in_one_step(*self._reading)
        return NumpyState(self.generator, words, gauss)

    def write(self, words: bytes, gauss: bytes) -> None:
        """Restore a result of `read`. Other lengths would raise, and leave the lock locked."""
        set_words = partial(self._set_words, _ALL, words)
        set_gauss = partial(self._set_gauss, _ALL, gauss)
        in_one_step(self._acquire, set_words, set_gauss, self._release)


class NumPy(Source):
    """`np.random.*`, with any bit generator.

    `np.random.get_state` and `set_state` loop over 624 boxed integers (about 90 us
    together). Copying memory takes 1 us: the state of an MT19937 has a documented address,
    and a scratch object of the same type shows where the cached Gaussian is. The public
    calls serve if a layout is unexpected, and for other bit generators. The layout is
    checked at the first use, because that loads `numpy.random`.
    """

    name = "numpy"

    def __init__(self) -> None:
        self._mapped: Memory | None = None
        self._last_seed = -1

    def capture(self) -> NumpyState:
        if (memory := self._memory()) is not None:
            return memory.read()
        return NumpyState(_bit_generator(), unwatched(np.random.get_state)(legacy=False))

    def seed(self, seed: int) -> None:
        again, self._last_seed = seed == self._last_seed, seed
        if again and (memory := self._memory()) is not None:
            memory.write(_seeded_words(seed), _NO_GAUSS)
        elif isinstance(generator := _bit_generator(), np.random.MT19937):
            unwatched(np.random.seed)(_as_words(seed))
        else:
            fresh = type(generator)(seed).state
            unwatched(np.random.set_state)({**fresh, "has_gauss": 0, "gauss": 0.0})

    def restore(self, state: NumpyState) -> None:
        generator = _bit_generator()
        if state.generator is not None and state.generator is not generator:
            # The block replaced the bit generator: put the caller's object back.
            generator = state.generator
            _set_bit_generator(generator)
        elif (
            isinstance(state.words, dict)
            and state.words["bit_generator"] != type(generator).__name__
        ):
            # From a state_dict: create a bit generator of the saved kind.
            generator = getattr(np.random, state.words["bit_generator"])()
            _set_bit_generator(generator)
        memory = self._memory()
        if memory is None or isinstance(state.words, dict):
            unwatched(np.random.set_state)(_public(state))
        else:
            memory.write(state.words, state.gauss)

    def resume(self, seed: int, state: NumpyState) -> None:
        # If NumPy has another generator now, the old one belongs to its owner: do not write it.
        if state.generator is not _bit_generator():
            state = NumpyState(None, _public(state))
        self.restore(state)

    def fingerprint(self) -> Any:
        memory = self._memory()
        return (
            _plain(unwatched(np.random.get_state)(legacy=False))
            if memory is None
            else memory.fingerprint()
        )

    def encode(self, state: NumpyState) -> dict[str, Any]:
        payload: dict[str, Any] = _plain(_public(state))
        return payload

    def decode(self, payload: Any) -> NumpyState:
        name = payload["bit_generator"]
        kind = getattr(np.random, name) if type(name) is str and hasattr(np.random, name) else None
        if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):
            raise ValueError(f"np.random has no bit generator {shown(name)}")
        scratch = np.random.RandomState(kind(0))
        scratch.set_state(payload)
        state: Any = scratch.get_state(legacy=False)
        if not same_state(_plain(state), _plain(payload)) or not _is_possible(state):
            raise ValueError(f"no {kind.__name__} can have this state")
        return NumpyState(None, state)

    def same(self, a: Any, b: Any) -> bool:
        # A fingerprint is compared as it is.
        return same_state(self._comparable(a), self._comparable(b))

    def _comparable(self, state: Any) -> Any:
        return self.encode(state) if isinstance(state, NumpyState) else state

    def _memory(self) -> Memory | None:
        """Return the memory of the present generator, or None if its layout is unknown."""
        generator, mapped = _bit_generator(), self._mapped
        if mapped is not None and mapped.generator is generator:
            return mapped
        if type(generator) is not np.random.MT19937 or self._gauss is None:
            return None
        self._mapped = mapped = Memory(generator, self._gauss)
        return mapped

    @cached_property
    def _gauss(self) -> memoryview | None:
        owner = getattr(np.random.standard_normal, "__self__", None)
        is_owned = type(owner) is np.random.RandomState
        return map_gauss(owner, find_gauss()) if is_owned else None


def _bit_generator() -> Any:
    # Documented, but missing from NumPy's type stubs, as is set_bit_generator.
    return np.random.get_bit_generator()  # type: ignore[attr-defined]


def _set_bit_generator(generator: Any) -> None:
    np.random.set_bit_generator(generator)  # type: ignore[attr-defined]


def _as_words(seed: int) -> int | list[int]:
    """Return the seed in a form that `np.random.seed` accepts: integers of 32 bits.

    Two words keep seeds distinct; the low 32 bits alone would not.
    """
    return seed if seed < 2**32 else [seed & 0xFFFFFFFF, seed >> 32]


@lru_cache(maxsize=1)
def _seeded_words(seed: int) -> bytes:
    """Return the words that `np.random.seed(seed)` produces. The cache holds one seed."""
    generator = np.random.MT19937(0)
    np.random.RandomState(generator).seed(_as_words(seed))
    return copy_at(generator.ctypes.state_address, _WORDS_BYTES)


def _public(state: NumpyState) -> dict[str, Any]:
    """Return the state as `np.random.set_state` accepts it, with a list as the key.

    With an array as the key, `set_state` boxes each element: 47 us instead of 2.
    """
    if isinstance(state.words, dict):
        return state.words
    *key, position = np.frombuffer(state.words, np.uint32).tolist()
    has_gauss, gauss = _GAUSS.unpack(state.gauss)
    return {
        "bit_generator": "MT19937",
        "state": {"key": key, "pos": position},
        "has_gauss": has_gauss,
        "gauss": gauss,
    }


def _is_possible(state: dict[str, Any]) -> bool:
    """Return whether a generator can have a state that NumPy has accepted.

    NumPy does not check a position, and would read outside of the words. A PCG64 with an even
    increment repeats itself early, and with 0 at once.
    """
    inner = state["state"]
    flags = (state.get(flag, 0) in (0, 1) for flag in ("has_gauss", "has_uint32"))
    if not (all(flags) and math.isfinite(state["gauss"])):
        return False
    if "key" in inner and "pos" in inner:  # MT19937
        return 0 <= inner["pos"] <= len(inner["key"]) and can_go_on(inner["key"].tolist())
    if "inc" in inner:  # PCG64, PCG64DXSM
        return bool(inner["inc"] % 2)
    return "buffer" not in state or 0 <= state["buffer_pos"] <= len(state["buffer"])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


def map_gauss(owner: Any, place: int | None) -> memoryview | None:
    """Return the memory of the Gaussian that a `RandomState` has cached, None without a place."""
    return None if place is None else map_at(owner, id(owner) + place, _GAUSS.size)


def find_gauss() -> int | None:
    """Return the offset of the cached Gaussian, or None if a layout is unexpected.

    A value that occurs once in a scratch object shows its offset. Reads and writes of both
    layouts are then compared with the public state.
    """
    if not is_addressable():
        return None
    generator = np.random.MT19937(1029)
    scratch = np.random.RandomState(generator)
    scratch.standard_normal()
    state: Any = scratch.get_state(legacy=False)
    size = np.random.RandomState.__basicsize__
    memory, value = map_at(scratch, id(scratch), size), struct.pack("=d", state["gauss"])
    place = memory.tobytes().find(value) + len(value) - _GAUSS.size
    if place < object.__basicsize__ or memory.tobytes().count(value) != 1:
        return None
    in_place = Memory(generator, memory[place : place + _GAUSS.size])
    kept: Any = in_place.read()
    scratch.standard_normal(2)
    later: Any = scratch.get_state(legacy=False)
    if _public(kept) != _plain(state) or _public(in_place.read()) != _plain(later):
        return None
    in_place.write(kept.words, kept.gauss)
    return place if _plain(scratch.get_state(legacy=False)) == _plain(state) else None
