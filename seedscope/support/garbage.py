"""The garbage collector: whether it runs in this thread, and a look in which it does not run."""

from __future__ import annotations

import gc
import operator
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

# Three callbacks, each a C function that the collector calls with a phase, "start" or "stop", and
# a dict. Nothing of Python runs in them, so that Ctrl-C cannot come there: the collector would
# swallow it. The first two move the phase to the end of `_phases`, with its dict. The third keeps
# the dict for each thread.
_phases: dict[str, Any] = {}
_here = threading.local()
gc.callbacks += [_phases.pop, _phases.__setitem__, partial(setattr, _here)]


def is_collecting() -> bool:
    """Return whether this thread is in the middle of a garbage collection."""
    is_running = next(reversed(_phases), None) == "start"
    return is_running and getattr(_here, "start", None) is _phases["start"]


def uncollected(look: Callable[[], T]) -> T:
    """Return `look()`, a function in C that looks at the frames of another thread.

    Python 3.11 makes the object of a frame when it is asked for, and may collect garbage meanwhile.
    The other thread can go on then, and leave the frame: the process crashes. Python 3.11.8 has
    this mended for `sys._current_frames`, and 3.12 for all (python/cpython#106883).
    """
    if sys.version_info >= (3, 12) or not gc.isenabled():
        return look()
    try:
        # In C, so that neither another thread, which may fork, nor Ctrl-C comes between.
        steps: Any = (gc.disable, look, gc.enable)
        found: T = [*map(operator.call, steps)][1]
    except BaseException:
        gc.enable()
        raise
    return found
