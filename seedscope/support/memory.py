"""Memory at an address, as bytes: the public calls box each word, or have effects of their own."""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def is_addressable() -> bool:
    """Return whether an object's id is its address and the GIL protects a copy of its bytes."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and bool(has_gil())


def map_at(owner: Any, address: int, size: int) -> memoryview:
    """Return a view of the `size` bytes at `address`; the view keeps `owner` alive."""
    array: Any = (ctypes.c_char * size).from_address(address)
    array.owner = owner
    return memoryview(array).cast("B")


def copy_at(address: int, size: int) -> bytes:
    """Return a copy of the `size` bytes at `address`."""
    return ctypes.string_at(address, size)
