"""A generator object that code holds, as a source."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from ..support.memory import copy_at, is_addressable, map_at
from .base import Source
from .numpy import Memory, find_gauss, map_gauss
from .python import PythonState, layout_is_known, map_words

# A layout does not change. The global sources look for themselves.
_python_is_known = lru_cache(maxsize=1)(layout_is_known)
_place_of_gauss = lru_cache(maxsize=1)(find_gauss)


class HeldPython(Source):
    """A `random.Random`, read and written in memory: the public calls take 20 us."""

    def __init__(self, name: str, generator: random.Random) -> None:
        self.name = name
        self._generator: Any = generator
        is_plain = type(generator) is random.Random
        self._words = map_words(generator) if is_plain and _python_is_known() else None
        # Past the watch on `random.Random.seed`, which looks for generators made without a seed.
        self._seed: Any = super(random.Random, generator).seed if is_plain else generator.seed

    def capture(self) -> Any:
        if self._words is None:
            return self._generator.getstate()
        return PythonState(self._words.tobytes(), self._generator.gauss_next)

    def seed(self, seed: int) -> None:
        self._seed(seed)
        self._generator.gauss_next = None

    def restore(self, state: Any) -> None:
        if self._words is None:
            self._generator.setstate(state)
        else:
            self._words[:], self._generator.gauss_next = state

    def fingerprint(self) -> Any:
        # The position and 128 bits: two states agree there with a probability of 2**-128.
        return self.capture() if self._words is None else self._words[:20].tobytes()


class HeldNumPy(Source):
    """A `Generator`, a `RandomState` or a bit generator of NumPy.

    The state is written as it is, because NumPy's `SeedSequence` takes 10 us for a seed. An
    MT19937 and a PCG64 are read and written in memory: the public calls take 90 and 7 us.
    """

    def __init__(self, name: str, generator: Any) -> None:
        self.name = name
        self._bits: Any = bits_of(generator)
        self._legacy = generator if isinstance(generator, np.random.RandomState) else None
        self._memory: Memory | _PCG64Memory | None = None
        self._seed_legacy: Any = None
        kind = type(self._bits)
        known = next((base for base in kind.__mro__ if base in _STATES), None)
        self._state = partial(_seeded, kind) if known is None else _STATES[known]
        if isinstance(self._bits, np.random.MT19937):
            legacy = self._legacy or np.random.RandomState(self._bits)
            self._seed_legacy = legacy.seed
            gauss = map_gauss(legacy, _place_of_gauss())
            if gauss is not None and kind is np.random.MT19937:
                self._memory = Memory(self._bits, gauss)
        elif known is None:
            self._state(bytes(32))  # if the class takes no seed, this is told where it is found
        elif kind in _PCG64S and self._legacy is None and _pcg64_is_known():
            self._memory = _PCG64Memory(self._bits)

    def capture(self) -> Any:
        if self._memory is not None:
            return self._memory.read()
        if self._legacy is not None:
            return self._legacy.get_state(legacy=False)
        return self._bits.state

    def seed(self, seed: int) -> None:
        if self._seed_legacy is not None:
            self._seed_legacy(seed)
            return
        words = hashlib.sha256(seed.to_bytes(8, "little")).digest()
        if self._memory is not None:
            self._memory.write(_odd(words), _NO_HALF)
        elif self._legacy is None:
            self._bits.state = self._state(words) | {"bit_generator": type(self._bits).__name__}
        else:
            self._legacy.set_state({**self._state(words), "has_gauss": 0, "gauss": 0.0})

    def fingerprint(self) -> Any:
        return self.capture() if self._memory is None else self._memory.fingerprint()

    def restore(self, state: Any) -> None:
        if self._memory is not None:
            self._memory.write(*state[-2:])
        elif self._legacy is not None:
            self._legacy.set_state(state)
        else:
            self._bits.state = state


class HeldTorch(Source):
    """A `torch.Generator` of any device."""

    def __init__(self, name: str, generator: torch.Generator) -> None:
        self.name = name
        self._generator = generator

    def capture(self) -> torch.Tensor:
        return self._generator.get_state()

    def seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def restore(self, state: torch.Tensor) -> None:
        self._generator.set_state(state)


#: The classes of generators, and what makes one of their objects a source.
KINDS: dict[type, Callable[[str, Any], Source]] = {
    random.Random: HeldPython,
    np.random.Generator: HeldNumPy,
    np.random.RandomState: HeldNumPy,
    np.random.BitGenerator: HeldNumPy,
    torch.Generator: HeldTorch,
}


def bits_of(generator: Any) -> Any:
    """Return the bit generator of one of NumPy's generators."""
    if isinstance(generator, np.random.RandomState):
        return generator._bit_generator
    return getattr(generator, "bit_generator", generator)


def is_governed(generator: Any) -> bool:
    """Return whether a scope governs the generator by one of its own sources."""
    if isinstance(generator, torch.Generator):
        module = getattr(torch, generator.device.type, None)
        own = (torch.default_generator, *getattr(module, "default_generators", ()))
        return any(generator is one for one in own)
    if isinstance(generator, random.Random):
        return generator is getattr(random.random, "__self__", None)
    return bits_of(generator) is np.random.get_bit_generator()  # type: ignore[attr-defined]


class _PCG64Memory:
    """The memory of a PCG64: state and increment, and the half of a word that waits."""

    # struct { pcg64_random_t *pcg_state; int has_uint32; uint32_t uinteger; }
    # https://github.com/numpy/numpy/blob/main/numpy/random/src/pcg64/pcg64.h
    def __init__(self, bits: Any) -> None:
        address = bits.ctypes.state_address
        words = map_at(bits, int.from_bytes(copy_at(address, 8), "little"), 32)
        half = map_at(bits, address + 8, 8)
        self._parts = words, half

    def read(self) -> tuple[bytes, bytes]:
        words, half = self._parts
        return words.tobytes(), half.tobytes()

    fingerprint = read

    def write(self, words: bytes, half: bytes) -> None:
        self._parts[0][:], self._parts[1][:] = words, half


def _find_pcg64() -> bool:
    """Return whether reads and writes of a PCG64's memory agree with its public state."""
    if not is_addressable() or sys.byteorder != "little":
        return False
    for kind in _PCG64S:
        one, other = kind(1029), kind(5)
        np.random.Generator(one).integers(9, dtype=np.uint32)  # half of a word waits
        words, half = _PCG64Memory(one).read()
        known, waiting = _STATES[kind](words), one.state
        has_half, value = struct.unpack("=iI", half)
        if {**known, "has_uint32": has_half, "uinteger": value} != waiting:
            return False
        _PCG64Memory(other).write(words, half)
        if other.state != waiting:
            return False
    return True


_pcg64_is_known = lru_cache(maxsize=1)(_find_pcg64)


def _odd(words: bytes) -> bytes:
    """Return 32 random bytes as a PCG64 can have them: its increment is odd."""
    return words[:16] + bytes([words[16] | 1]) + words[17:]


def _pcg64(name: str) -> Callable[[bytes], dict[str, Any]]:
    def state(words: bytes) -> dict[str, Any]:
        words = _odd(words)
        inner = {
            "state": int.from_bytes(words[:16], "little"),
            "inc": int.from_bytes(words[16:], "little"),
        }
        return {"bit_generator": name, "state": inner, "has_uint32": 0, "uinteger": 0}

    return state


def _philox(words: bytes) -> dict[str, Any]:
    whole, none = np.frombuffer(words, np.uint64), np.zeros(4, np.uint64)
    return {
        "bit_generator": "Philox",
        "state": {"counter": none, "key": whole[:2]},
        "buffer": none,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }


def _sfc64(words: bytes) -> dict[str, Any]:
    inner = np.frombuffer(words, np.uint64).copy()
    inner[3] = 1  # the counter, as NumPy begins it
    return {"bit_generator": "SFC64", "state": {"state": inner}, "has_uint32": 0, "uinteger": 0}


def _seeded(kind: Any, words: bytes) -> Any:
    """Return what a bit generator of someone else begins with."""
    return kind(int.from_bytes(words, "little")).state


_NO_HALF = bytes(8)
_PCG64S: tuple[Any, ...] = (np.random.PCG64, np.random.PCG64DXSM)

# What NumPy's generators begin with, from 32 random bytes.
_STATES: dict[Any, Callable[[bytes], dict[str, Any]]] = {
    np.random.PCG64: _pcg64("PCG64"),
    np.random.PCG64DXSM: _pcg64("PCG64DXSM"),
    np.random.Philox: _philox,
    np.random.SFC64: _sfc64,
}
