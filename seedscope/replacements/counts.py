"""How many calls of each operation were replaced in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

UNPROVED, REFUSED = "unproved", "refused"


class What(NamedTuple):
    """What was replaced: the operation, the formula's version, and how it was proved."""

    operation: str
    version: int
    state: str = ""  # empty, UNPROVED or REFUSED


# Each thread writes its own keys only, so that no count needs a lock: a backward on several
# GPUs replaces operations in several threads at a time.
_counts: dict[tuple[int, What], int] = {}


def add(what: What) -> None:
    key = threading.get_ident(), what
    _counts[key] = _counts.get(key, 0) + 1


def totals() -> dict[What, int]:
    """Return the number of calls so far, in all threads of the process."""
    total: dict[What, int] = {}
    if not _counts:
        return total
    for (_, what), count in [*_counts.items()]:
        total[what] = total.get(what, 0) + count
    return total


def since(before: Mapping[What, int], earlier: Mapping[What, int]) -> Mapping[What, int]:
    """Return the calls since the totals were `before`, on top of those that came earlier."""
    now = totals()
    if now == before:  # each block asks, and few have replaced anything
        return earlier
    total = dict(earlier)
    for what, count in now.items():
        if new := count - before.get(what, 0):
            total[what] = total.get(what, 0) + new
    return total
