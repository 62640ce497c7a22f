"""Which values a setting can have: a saved state has to be checked before it is restored."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Allowed = Callable[[Any], bool]

_INT_LIMIT = 2**31


def one_of(*values: Any) -> Allowed:
    """Return a check for exactly these values: 1 and True are two."""

    def is_one(value: Any) -> bool:
        return any(type(value) is type(one) and value == one for one in values)

    return is_one


is_flag: Allowed = one_of(True, False)
is_open_flag: Allowed = one_of(True, False, None)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _INT_LIMIT


def is_text(value: Any) -> bool:
    """Return whether an environment variable can have the value; None stands for no variable."""
    if value is None:
        return True
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def like(present: Any) -> Allowed:
    """Return the check for a flag of which only the `present` value is known."""
    if type(present) is bool:
        return is_flag
    if type(present) is int:
        return is_count
    return is_open_flag if present is None else lambda value: type(value) is type(present)
