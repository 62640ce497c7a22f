"""What the package logs, and its warnings, as a command's own lines on standard error.

Loaded once a command runs: `logging` takes a third as long as Python's own start.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOGGER = logging.getLogger("seedscope")


class _OneLine(logging.Handler):
    """Prints a message with the command's name, on the stderr of this moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"seedscope: {record.getMessage()}", file=sys.stderr, flush=True)


@contextmanager
def said(says_warnings: bool) -> Iterator[None]:
    """Say what the package logs, and its warnings too if `says_warnings`, each of them once."""
    handler, level, propagates = _OneLine(), LOGGER.level, LOGGER.propagate
    known: set[str] = set()

    def say_once(message: Any, *_: Any) -> None:
        if str(message) not in known:
            known.add(str(message))
            LOGGER.warning("%s", message)

    with warnings.catch_warnings():
        if says_warnings:
            warnings.showwarning = say_once  # type: ignore[assignment]
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False  # a handler of the program's would say it again
        try:
            yield
        finally:
            LOGGER.removeHandler(handler)
            LOGGER.setLevel(level)
            LOGGER.propagate = propagates
