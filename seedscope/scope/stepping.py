"""Run the body of a generator or coroutine with a scope that is open only while it runs.

A scope made with `resumes=True` can be entered again and resumes where it stopped. So the scope
is open while the body runs, and closed while the body is suspended.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Generator
from typing import Any

from ..support.compiler import skipped
from ..support.garbage import is_collecting


class Body:
    """A generator, a coroutine, or one step of an async generator.

    A body that ignores its close is closed for good when the last reference to it ends. This is
    the last one, so that it ends where the scope is open.

    Args:
        steps: what is advanced by `send` and `throw`.
        of: the async generator of which `steps` is one step.

    Attributes:
        returned: what the `close` of a generator has returned; None before Python 3.13.
    """

    __slots__ = ("_of", "returned", "steps")

    def __init__(self, steps: Any, of: Any = None) -> None:
        self.steps: Any = steps
        self.returned: Any = None
        self._of = of

    def is_suspended(self) -> bool:
        """Return whether the body has begun, and neither ended nor been closed."""
        if self.steps is None:
            return False
        of = self.steps if self._of is None else self._of
        # An async generator is running as long as one of its steps waits.
        names = ("gi_suspended", "cr_suspended", "ag_running")
        return any(getattr(of, name, False) for name in names)

    def close(self) -> None:
        """Close the body, if it has not been closed."""
        is_suspended, steps, self.steps = self.is_suspended(), self.steps, None
        try:
            if self._of is None:
                if steps is not None:
                    self.returned = steps.close()
            elif is_suspended:  # else nothing of the body waits in the step
                # Before Python 3.13, the `close` of a step does not reach the body.
                with contextlib.suppress(GeneratorExit, StopIteration, StopAsyncIteration):
                    steps.throw(GeneratorExit())
                    raise RuntimeError("async generator ignored GeneratorExit")
        finally:
            del steps

    def finish(self, scope: Any) -> None:
        """Close the body in the scope, if an interrupt of the scope has left it suspended."""
        if self.is_suspended() and not is_collecting():
            told = sys.exception()
            try:
                with scope:
                    self.close()
            except Exception as error:
                if repr(error) != repr(told):  # else the scope does not open, as was told
                    raise


@skipped
def drive(body: Body, scope: Any) -> Generator[Any, Any, Any]:
    """Run a body with the scope open during each step, as PEP 380 delegates."""
    advance, value = body.steps.send, None
    try:
        while True:
            try:
                with scope:
                    yielded = advance(value)
            except StopIteration as stop:
                return stop.value
            try:
                value = yield yielded
                advance = body.steps.send
            except GeneratorExit:
                # The collector closes a suspended generator that it finds in a cycle wherever it
                # happens to run, also inside `torch.Generator.get_state`, which holds a lock. To
                # open a scope there would wait for that lock forever.
                advance = None
                if not is_collecting():
                    with scope:
                        body.close()
                raise
            except BaseException as error:
                advance, value = body.steps.throw, error
    finally:
        advance = None
        try:
            body.finish(scope)
        finally:  # again: a second interrupt may come there
            try:
                body.finish(scope)
            finally:
                body.close()  # what has not begun, or could not be closed in the scope


@types.coroutine
def drive_awaited(body: Body, scope: Any) -> Generator[Any, Any, Any]:
    return (yield from drive(body, scope))
