"""Seeds: check, draw and derive them."""

from __future__ import annotations

import functools
import hashlib
import operator
import secrets
from collections.abc import Callable
from typing import Any

from .support.showing import shown

SEED_LIMIT = 2**64


def check_seed(seed: Any) -> int:
    """Return `seed` as a Python int in [0, 2**64).

    NumPy integers, and integer arrays or tensors without dimensions, are accepted.

    Raises:
        TypeError: `seed` is a bool, a float, a string or another value that is not an integer.
        ValueError: `seed` is out of range.
    """
    if type(seed) is int and 0 <= seed < SEED_LIMIT:
        return seed  # the usual case, without the slower checks
    is_flag = isinstance(seed, bool) or "bool" in str(getattr(seed, "dtype", ""))
    if is_flag or getattr(seed, "ndim", 0) != 0:
        raise TypeError(_not_an_integer("seed", seed))
    try:
        value = operator.index(seed)
    except Exception:
        raise TypeError(_not_an_integer("seed", seed)) from None
    if not 0 <= value < SEED_LIMIT:
        raise ValueError(
            f"seed must be in [0, 2**64), got {shown(value)}; seedscope.fresh_seed() draws one"
        )
    return value


def fresh_seed() -> int:
    """Return a new seed in [0, 2**32), drawn from the operating system.

    The seed is below 2**32 so that other tools accept it: `np.random.seed` refuses larger
    seeds. The call changes no generator of the process.
    """
    return secrets.randbits(32)


def derive_seed(seed: int, *keys: int | str) -> int:
    """Return a seed in [0, 2**64) that depends only on `seed` and `keys`.

    The seed is the same on every platform, Python version and process. Keys of different
    types (`1` and `"1"`) and different groupings (`"ab"` and `"a", "b"`) give different
    seeds. The seed is a 64-bit BLAKE2b hash, so two of a million keys collide with a
    probability of 3 in 10**8.

    torch's CPU generator uses only the low 32 bits of a seed. Two of many derived seeds can
    therefore give the same torch CPU stream, while their other streams differ.

    Raises:
        TypeError: `seed` is not an integer, or a key is neither an integer nor a string.
        ValueError: `seed` is out of range.
    """
    return deriver(seed, *keys)()


def deriver(seed: int, *keys: int | str) -> Callable[..., int]:
    """Return a function that maps `more` keys to `derive_seed(seed, *keys, *more)`."""
    encoded = b"".join([_encode_key(check_seed(seed)), *map(_encode_key, keys)])
    begun = hashlib.blake2b(encoded, digest_size=8, person=b"seedscope")

    def derive(*more: int | str) -> int:
        hasher = begun.copy()
        for key in more:
            hasher.update(_encode_key(key))
        return int.from_bytes(hasher.digest(), "little")

    return derive


def source_seeds(seed: int) -> Callable[[str], int]:
    """Return a function that maps the name of a source to a seed of its own, in [0, 2**32).

    NumPy takes 2 us for a seed of 32 bits, and 10 us for a longer one. torch uses no more.
    """
    encoded = _encode_key(check_seed(seed)) + b"source"
    begun = hashlib.blake2b(encoded, digest_size=4, person=b"seedscope")

    def seed_of(name: str) -> int:
        hasher = begun.copy()
        hasher.update(_encode_name(name))
        return int.from_bytes(hasher.digest(), "little")

    return seed_of


def _encode_key(key: Any) -> bytes:
    if type(key) is int:
        return b"i%x;" % key
    if isinstance(key, str):
        text = key.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    if isinstance(key, bool):
        raise TypeError(_not_an_integer("a key", key))
    try:
        return b"i%x;" % operator.index(key)
    except TypeError:
        message = f"a key must be an integer or a string, got {shown(key)} ({type(key).__name__})"
        raise TypeError(message) from None


@functools.lru_cache(maxsize=4096)
def _encode_name(name: str) -> bytes:
    return _encode_key(name)


def _not_an_integer(what: str, value: Any) -> str:
    return (
        f"{what} must be an integer, got {shown(value)} ({type(value).__name__}); "
        "convert it with int(...), or draw one with seedscope.fresh_seed()"
    )
