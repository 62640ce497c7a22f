"""The messages and the output of the commands."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from ..support.remarks import is_terminal, printed_by, write_error
from ..support.visible import message, styled, visible


class Unusable(Exception):
    """The command cannot run with these arguments. The message is one line."""


def say(text: str, end: str = "\n") -> None:
    """Print `text` on standard error, as a line of its own."""
    write_error(f"seedscope: {message(text)}", end)


def can_ask() -> bool:
    """Return whether someone sees a question and can answer it."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def ask(question: str) -> bool:
    """Ask on the terminal, and return whether the answer is yes; the end of input is no."""
    say(f"{question} [y/N]", end=" ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show(text: str, end: str = "\n", is_styled: bool = False) -> None:
    """Print `text` on standard output; its reader may have gone, as in `seedscope log | head`.

    All output of the commands comes through here: no text of others reaches the terminal as
    it is. Of `text` only line ends are kept, and if `is_styled` the styles of rich.

    Raises:
        Unusable: standard output cannot be written, such as on a full disk.
    """
    if sys.stdout is None:
        return
    text = styled(text) if is_styled else visible(text, keep="\n")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), end=end, flush=True)
    except OSError as error:
        # Python writes the rest at its end, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise Unusable(f"cannot write the output: {error}") from error


def show_json(value: Any) -> None:
    import json

    show(json.dumps(value, indent=1))


@contextlib.contextmanager
def said(says_warnings: bool) -> Iterator[None]:
    """Print the package's remarks and, if `says_warnings`, everyone's warnings, each once."""
    known: set[str] = set()

    def say_once(text: Any, *_: Any) -> None:
        if str(text) not in known:
            known.add(str(text))
            say(str(text))

    with warnings.catch_warnings(), printed_by(say_once):
        if says_warnings:
            warnings.showwarning = say_once  # type: ignore[assignment]
        yield
