"""Calls that neither Ctrl-C nor another thread can interrupt."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any


def in_one_step(*calls: Callable[[], Any]) -> list[Any]:
    """Return the results of calls to C functions, prepared with `functools.partial`.

    `map` makes the calls inside one C call. Python handles signals and switches threads
    only between steps of Python code. If a call raises, the later calls are not made.
    """
    return list(map(operator.call, calls))
