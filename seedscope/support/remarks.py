"""The package's remarks and warnings: to the program, or to a command that prints them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .visible import message, visible

_printer: Callable[[str], None] | None = None


@contextmanager
def printed_by(printer: Callable[[str], None]) -> Iterator[None]:
    """Give remarks and warnings to `printer`, whatever a program does to logging and filters."""
    global _printer
    before, _printer = _printer, printer
    try:
        yield
    finally:
        _printer = before


def remark(text: str) -> None:
    """Log `text` to the logger `seedscope`, at level `INFO`."""
    if _printer is not None:
        _printer(text)
        return
    import logging  # takes a third as long as the start of Python

    logging.getLogger("seedscope").info("%s", message(text))


def warn(text: str, category: type[Warning] = UserWarning, stacklevel: int = 1) -> None:
    """Warn of something that must not be lost under a command."""
    if _printer is not None:
        _printer(text)
    else:
        warnings.warn(visible(text, keep="\n"), category, stacklevel=stacklevel + 1)


def level_of_the_user() -> int:
    """Return the `stacklevel` of a warning of the caller: the first frame of other code."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__"))
        if not module.startswith(("seedscope.", "torch._dynamo.", "torch.utils.data.")):
            break
        frame, level = frame.f_back, level + 1
    return level


def write_error(text: str, end: str = "\n") -> None:
    """Print `text` on standard error; if that is closed or full, the program goes on.

    All that the package prints there comes through here: no text of others reaches the
    terminal as it is.
    """
    text = visible(text, keep="\n") + end
    if sys.stderr is None:  # print() would take standard output
        return
    with suppress(OSError, ValueError):
        try:
            number = sys.stderr.fileno()
        except OSError:  # a notebook's stream, which has no file
            print(text, end="", file=sys.stderr, flush=True)
            return
        # Past the buffer: text that stays there would fail again when Python ends.
        os.write(number, text.encode(errors="backslashreplace"))


def is_terminal(stream: Any) -> bool:
    """Return whether `stream` is a terminal; a daemon's `sys.stderr` is None, or closed."""
    return stream is not None and not stream.closed and bool(stream.isatty())
