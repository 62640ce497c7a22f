"""What there is to measure: items, in pieces that share a part of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

#: What was found of an item, in JSON's types. "failed" says why there is no more.
Found = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """Where to measure, and how much.

    Attributes:
        device: "cuda" or "cpu".
        small: stand-ins and inputs that a CPU can run.
        quick: fewer rounds. A look, not a figure.
    """

    device: str
    small: bool = False
    quick: bool = False

    @property
    def is_cuda(self) -> bool:
        return self.device == "cuda"


@dataclass(frozen=True)
class Slot:
    """What an item gets from the run that measures it.

    Attributes:
        until: the `time.monotonic()` at which it should be done. Infinite without a budget.
        keep: takes what is found so far, so that it outlasts an item that hangs or crashes.
        before: what an earlier run has kept of the item, which it did not bring to its end.
    """

    until: float
    keep: Callable[[Found], None]
    before: Found = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One thing to measure.

    Attributes:
        group: the heading under which the result is kept.
        name: its name there.
        measure: measures it; called in the process named `process`, so it must pickle.
        seconds: how long it is expected to take on an H200, its process already running.
            Only the proportions matter once the run has seen the machine's pace.
        process: items with the same one share a process, and what they have warmed there.
        is_elastic: whether it has a use for more time: it goes on until its slot ends, and
            says in "spare_s" how long it did so without need.
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
    """Items in the order in which they matter, and the seconds that they share.

    A piece without an end to its share, the last, takes what the others have left.
    """

    name: str
    share_s: float
    items: Sequence[Item]
