"""NumPy's global generator, `np.random`."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

from .base import Source

# Documented, and missing from NumPy's own type stubs.
_get_bit_generator: Any = np.random.get_bit_generator  # type: ignore[attr-defined]
_set_bit_generator: Any = np.random.set_bit_generator  # type: ignore[attr-defined]

# struct mt19937_state: uint32 key[624]; int pos.
# https://github.com/numpy/numpy/blob/main/numpy/random/src/mt19937/mt19937.h
_STATE_BYTES = 625 * 4

# `map` over this calls `standard_normal(None)` once, and `list.extend` stores the
# result, in one C call: a signal cannot come between the draw and its keeping.
_ONCE = (None,)


class NumpyState(NamedTuple):
    """Where NumPy's global generator stands.

    `words` holds the raw bytes of an MT19937, or the public state dict of any other
    bit generator. `gauss` is the cached second Gaussian of `words` in raw form.
    """

    generator: Any
    words: bytes | dict[str, Any]
    gauss: float | None = None


class NumPy(Source):
    """`np.random.*`, whatever bit generator it holds.

    `np.random.get_state` and `set_state` loop over 624 boxed integers (about 90 us
    together). The documented address of the state, `bit_generator.ctypes.state_address`,
    takes 0.3 us; it is used for an MT19937 whose layout was checked against the public
    state, and the public calls for everything else.
    """

    name = "numpy"

    def __init__(self) -> None:
        self._layout_is_known = _layout_is_known()
        self._mapped: tuple[Any, memoryview] | None = None

    def capture(self) -> NumpyState:
        generator = _get_bit_generator()
        memory = self._memory(generator)
        if memory is None:
            return NumpyState(generator, np.random.get_state(legacy=False))
        words = bytes(memory)
        # A cached Gaussian shows itself: drawing it leaves the words as they are.
        drawn: list[Any] = []
        try:
            drawn.extend(map(np.random.standard_normal, _ONCE))
            drawn.append(bytes(memory) == words)
            state = NumpyState(generator, words, drawn[0] if drawn[1] else None)
            _write(memory, state)
        except BaseException:
            if len(drawn) == 1:
                drawn.append(bytes(memory) == words)
            if drawn:
                _write(memory, NumpyState(generator, words, drawn[0] if drawn[1] else None))
            raise
        return state

    def seed(self, seed: int) -> None:
        generator = _get_bit_generator()
        if isinstance(generator, np.random.MT19937):
            # np.random.seed refuses more than 32 bits; two words keep seeds apart.
            np.random.seed(seed if seed < 2**32 else [seed & 0xFFFFFFFF, seed >> 32])
        else:
            fresh = type(generator)(seed).state
            np.random.set_state({**fresh, "has_gauss": 0, "gauss": 0.0})

    def restore(self, state: NumpyState) -> None:
        generator = _get_bit_generator()
        if state.generator is not None and state.generator is not generator:
            # The block replaced it: the caller's own object comes back.
            generator = state.generator
            _set_bit_generator(generator)
        elif (
            isinstance(state.words, dict)
            and state.words["bit_generator"] != type(generator).__name__
        ):
            # From a state_dict: a bit generator of the saved kind.
            generator = getattr(np.random, state.words["bit_generator"])()
            _set_bit_generator(generator)
        memory = self._memory(generator)
        if isinstance(state.words, dict) or memory is None:
            np.random.set_state(_public(state))
        else:
            _write(memory, state)

    def fingerprint(self) -> Any:
        memory = self._memory(_get_bit_generator())
        return _plain(np.random.get_state(legacy=False)) if memory is None else bytes(memory)

    def encode(self, state: NumpyState) -> dict[str, Any]:
        payload: dict[str, Any] = _plain(_public(state))
        return payload

    def decode(self, payload: Any) -> NumpyState:
        kind = getattr(np.random, str(payload["bit_generator"]), None)
        if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):
            raise ValueError(f"np.random has no bit generator {payload['bit_generator']!r}")
        scratch = np.random.RandomState(kind(0))
        scratch.set_state(payload)  # a scratch generator refuses a damaged state
        if type(payload["gauss"]) is not float or payload["has_gauss"] not in (0, 1):
            raise ValueError("the cached Gaussian is damaged")
        return NumpyState(None, scratch.get_state(legacy=False))

    def same(self, a: NumpyState, b: NumpyState) -> bool:
        return bool(self.encode(a) == self.encode(b))

    def _memory(self, generator: Any) -> memoryview | None:
        """The bytes of the generator's state, or None where they are not known."""
        if self._mapped is not None and self._mapped[0] is generator:
            return self._mapped[1]
        if not self._layout_is_known or type(generator) is not np.random.MT19937:
            return None
        memory = _map(generator)
        self._mapped = (generator, memory)  # keeps the generator, hence its memory, alive
        return memory


def _map(generator: Any) -> memoryview:
    address = generator.ctypes.state_address
    return memoryview((ctypes.c_char * _STATE_BYTES).from_address(address)).cast("B")


def _write(memory: memoryview, state: NumpyState) -> None:
    """Put the words and the cached Gaussian in place; safe to repeat."""
    if state.gauss is not None:
        np.random.set_state(_public(state))
        return
    words: Any = state.words
    memory[:] = words
    np.random.standard_normal()
    if bytes(memory) != words:
        # Nothing was cached, and the draw left one; this takes it away.
        np.random.standard_normal()
        memory[:] = words


def _public(state: NumpyState) -> dict[str, Any]:
    """The state as `np.random.set_state` takes it, with a list for the key.

    An array key costs `set_state` 47 us instead of 2: it boxes each element.
    """
    if isinstance(state.words, dict):
        return state.words
    *key, position = np.frombuffer(state.words, np.uint32).tolist()
    return {
        "bit_generator": "MT19937",
        "state": {"key": key, "pos": position},
        "has_gauss": int(state.gauss is not None),
        "gauss": 0.0 if state.gauss is None else state.gauss,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


def _layout_is_known() -> bool:
    """Whether an MT19937's memory holds what its public state says."""
    generator = np.random.MT19937(1029)
    generator.random_raw(3)
    state: Any = generator.state["state"]
    words = np.frombuffer(_map(generator), np.uint32).tolist()
    return bool(words == [*state["key"].tolist(), state["pos"]])
