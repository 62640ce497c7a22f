"""Run the body of a generator or coroutine with a scope that is open only while it runs.

A scope made with `resumes=True` can be entered again and resumes where it stopped. So the scope
is open while the body runs, and closed while the body is suspended. `finish()` tells the scope
that the body has ended.
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
    """Run a generator or coroutine with the scope open during each step, as PEP 380 delegates."""
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
                    try:
                        returned = steps.close()
                    finally:
                        # A body that yields again stays suspended. Without a reference it is
                        # closed for good, and here that happens in its scope.
                        steps = advance = None
                if returned is None:
                    raise
                return returned  # Python 3.13: close() returns what the generator returned
            except BaseException as error:
                advance, value = steps.throw, error
    finally:
        if steps is not None:
            steps.close()  # needed if the scope did not open; else `steps` is closed already


# The garbage collector closes a suspended generator that it finds in a cycle, wherever the
# collector happens to run: also inside `torch.Generator.get_state`, which holds a lock. To
# open a scope there would wait for that lock forever. So during a collection none is opened.
_collecting: set[int] = set()


def _note_collection(phase: str, _: Any) -> None:
    (_collecting.add if phase == "start" else _collecting.discard)(threading.get_ident())


gc.callbacks.append(_note_collection)


@types.coroutine
def drive_awaited(steps: Any, scope: Any) -> Generator[Any, Any, Any]:
    driven = drive(steps, scope)
    del steps  # `drive` must hold the last reference
    return (yield from driven)
