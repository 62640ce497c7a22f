"""Print the package's log messages and warnings on standard error, one line each.

Imported only when a command runs: `logging` takes a third as long as the start of Python.
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
    """Print each message with the name `seedscope`, on the present `sys.stderr`."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"seedscope: {record.getMessage()}", file=sys.stderr, flush=True)


@contextmanager
def said(says_warnings: bool) -> Iterator[None]:
    """Print the package's log messages and, if `says_warnings`, each warning once."""
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
        LOGGER.propagate = False  # a handler of the program would print the message again
        try:
            yield
        finally:
            LOGGER.removeHandler(handler)
            LOGGER.setLevel(level)
            LOGGER.propagate = propagates
