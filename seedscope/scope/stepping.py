"""Drives a body that is suspended and resumed, with a scope open while it runs.

A context made with `resumes=True` can be entered again and resumes where it stopped, so that
it is open only while a body runs and closed wherever the body is suspended; `finish()` tells
it that the body has ended.
"""

from __future__ import annotations

import gc
import threading
import types
from collections.abc import Generator
from typing import Any

from ..support.compiler import skipped


@skipped
def drive(steps: Any, scope: Any) -> Generator[Any, Any, Any]:
    """Run a generator or coroutine with the scope open during each step; PEP 380 by hand."""
    advance, value = steps.send, None
    try:
        while True:
            try:
                with scope:
                    yielded = advance(value)
            except StopIteration as stop:
                return stop.value
            try:
                value = yield yielded
                advance = steps.send
            except GeneratorExit:
                if threading.get_ident() in _collecting:
                    raise
                with scope:
                    returned = steps.close()
                if returned is None:
                    raise
                return returned  # Python 3.13: close() returns what the generator returned
            except BaseException as error:
                advance, value = steps.throw, error
    finally:
        steps.close()  # where the scope was not opened; else it is closed already


# A suspended generator that the garbage collector finds in a cycle is closed wherever the
# collector happens to run, even inside `torch.Generator.get_state`, which holds a lock
# that opening a scope there would wait for, forever. So none is opened.
_collecting: set[int] = set()


def _note_collection(phase: str, _: Any) -> None:
    (_collecting.add if phase == "start" else _collecting.discard)(threading.get_ident())


gc.callbacks.append(_note_collection)


@types.coroutine
def drive_awaited(steps: Any, scope: Any) -> Generator[Any, Any, Any]:
    return (yield from drive(steps, scope))
