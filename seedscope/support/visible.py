r"""Text of others as text alone: what a terminal would obey, or not show, becomes visible.

A log can come from anyone. A note of it could move the cursor, colour or hide what stands
beside it, or reverse the order of letters.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

# Python calls these printable, and no terminal shows them: fillers, blanks and selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# The colours and weights that rich gives to a table.
_STYLES = re.compile("(\x1b\\[[0-9;]*m)")


def visible(text: str, keep: str = "") -> str:
    r"""Return `text` with each control or invisible character as an escape, such as `\x1b`.

    Escaped are control characters, marks of direction and format, separators of lines and
    paragraphs, unusual spaces, lone surrogates and unassigned characters. Line ends too, so
    that one value stays on one line, but not the characters in `keep`.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(c if c in keep or _is_visible(c) else _escaped(c) for c in text)


def message(text: str) -> str:
    """Return the text of a message: no further line of it can look like another message."""
    return "\n  ".join(map(visible, text.split("\n")))


def styled(text: str) -> str:
    """Return a text of many lines that rich has rendered, with its styles."""
    pieces = _STYLES.split(text)
    pieces[::2] = [visible(piece, keep="\n") for piece in pieces[::2]]
    return "".join(pieces)


def shell(words: Iterable[str]) -> str:
    r"""Return a command in shell syntax; a word with such characters is quoted as `$'\x1b'`."""
    return " ".join(shlex.quote(w) if visible(w) == w else _ansi_quoted(w) for w in words)


def _ansi_quoted(word: str) -> str:
    quoted = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{visible(quoted)}'"


def _is_visible(character: str) -> bool:
    return character.isprintable() and not _INVISIBLE.match(character)


def _escaped(character: str) -> str:
    number = ord(character)
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
