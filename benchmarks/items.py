"""The things to measure: items, grouped in pieces that share a part of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

#: The result of an item, in JSON's types. "failed" gives the reason why the result ends here.
Found = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """The device to measure on, and the size of the measurement.

    Attributes:
        device: "cuda" or "cpu".
        small: whether stand-ins and small inputs are used, which a CPU can run.
        quick: whether fewer rounds are run: for a look, not for figures.
    """

    device: str
    small: bool = False
    quick: bool = False

    @property
    def is_cuda(self) -> bool:
        return self.device == "cuda"


@dataclass(frozen=True)
class Slot:
    """The arguments that an item gets from the run that measures it.

    Attributes:
        until: the `time.monotonic()` at which the item should end. Infinite without a budget.
        keep: keeps the result so far, in case the item hangs or crashes.
        before: the result that an earlier run has kept of the item, without completing it.
    """

    until: float
    keep: Callable[[Found], None]
    before: Found = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One thing to measure.

    Attributes:
        group: the heading under which the result is kept.
        name: the item's name in the group.
        measure: measures the item; must pickle, because the process named `process` calls it.
        seconds: the expected time on an H200, once the item's process runs. Only the
            proportions matter once the run has seen the machine's pace.
        process: the process's name. Items with the same name share a process and its caches.
        is_elastic: whether the item can use more time: the item then goes on until its slot
            ends, and notes in "spare_s" how many of the seconds it did not need.
    """

    group: str
    name: str
    measure: Callable[[Slot], Found]
    seconds: float = 1.0
    process: str = "main"
    is_elastic: bool = False

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


@dataclass(frozen=True)
class Piece:
    """Items, the most important first, and the seconds that they share.

    The last piece has an infinite share: it takes the time that the others have left.
    """

    name: str
    share_s: float
    items: Sequence[Item]
