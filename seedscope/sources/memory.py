"""Generator states in place, as bytes: the public calls box each word into an integer."""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def is_addressable() -> bool:
    """Whether an object's id is its address, and the GIL keeps others out while it is copied."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and bool(has_gil())


def map_at(owner: Any, address: int, size: int) -> memoryview:
    """Return the `size` bytes at `address`, which belong to `owner`: the view keeps it alive."""
    array: Any = (ctypes.c_char * size).from_address(address)
    array.owner = owner
    return memoryview(array).cast("B")


def copy_at(address: int, size: int) -> bytes:
    """Return a copy of the `size` bytes at `address`."""
    return ctypes.string_at(address, size)
