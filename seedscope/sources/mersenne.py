"""What the Mersenne Twisters of Python, NumPy and torch have in common."""

from __future__ import annotations

from collections.abc import Sequence


def can_go_on(words: Sequence[int]) -> bool:
    """Return whether a Mersenne Twister with these 624 words draws anything but 0 in the end.

    New words depend on the highest bit of the first word, and on all bits of the others. From
    zeros there come zeros for ever, and a loop that rejects a draw of 0 would not end.
    """
    return bool(words[0] >> 31) or any(words[1:])
