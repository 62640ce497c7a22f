"""Whether a garbage collection runs in this thread."""

from __future__ import annotations

import gc
import threading
from functools import partial
from typing import Any

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
