"""Calls that neither Ctrl-C nor another thread comes between."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any


def in_one_step(*calls: Callable[[], Any]) -> list[Any]:
    """Make calls of C functions, prepared with `functools.partial`; return what they return.

    `map` makes them inside one C call. Signals are handled, and threads switched, between
    steps of Python code alone. Where a call raises, none after it is made.
    """
    return list(map(operator.call, calls))
