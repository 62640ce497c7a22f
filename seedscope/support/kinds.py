"""The class of an object by itself."""

from __future__ import annotations

from typing import Any


def is_a(thing: Any, kinds: Any) -> bool:
    """Return whether an object is of one of the classes, past a `__class__` of its own.

    A proxy asks what it stands for, and may raise while that is missing.
    """
    return issubclass(type(thing), kinds)
