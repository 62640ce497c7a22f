"""What one run did: its operations in order, with digests of what they read and wrote.

Memory: 34 bytes for an operation and 10 for each digest.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

#: What a digest is of: a tensor from outside, memory that nothing has written, a generator's state,
#: a result.
INPUT, UNWRITTEN, GENERATOR, OUTPUT = range(4)


class Entry(NamedTuple):
    """A digest, with what it is of: the place among the operation's tensors, and the kind."""

    place: int
    kind: int
    digest: int


class Table:
    """Values that many operations share; each is kept once, and an operation has its number."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self.values: list[Any] = []

    def number(self, value: Hashable) -> int:
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found


class Tables:
    """The tables that all runs share, so that equal numbers mean equal values."""

    def __init__(self) -> None:
        self.operations: Table = Table()
        self.constants: Table = Table()  # the arguments that are no tensors, as text
        self.writing: set[int] = set()  # the numbers of operations that write to their arguments
        self.places: Table = Table()  # (code, instruction) of the caller, or None


class DeviceSums:
    """Sums that stay on their device until the end of the run: 8 bytes each."""

    _SIZE = 4096

    def __init__(self) -> None:
        self._full: list[torch.Tensor] = []
        self._buffer: torch.Tensor | None = None
        self._targets: array[int] = array("Q")  # where in the trace each belongs

    def add(self, value: torch.Tensor, target: int) -> None:
        place = len(self._targets) % self._SIZE
        if self._buffer is None or not place:
            self._buffer = torch.zeros(self._SIZE, dtype=torch.int64, device=value.device)
            self._full.append(self._buffer)
        self._buffer[place].copy_(value)
        self._targets.append(target)

    def read(self) -> Iterator[tuple[int, int]]:
        """Yield (target, sum) after one copy to the host."""
        if self._full:
            words = torch.cat(self._full)[: len(self._targets)].cpu().numpy().view(np.uint64)
            yield from zip(self._targets, map(int, words), strict=True)


class Trace:
    """The operations of one run."""

    def __init__(self, tables: Tables) -> None:
        self.tables: Tables = tables
        self.operations: array[int] = array("I")
        self.constants: array[int] = array("I")
        self.places: array[int] = array("I")
        self.lanes: array[int] = array("H")  # the thread, by the order in which threads appear
        self.threads: array[int] = array("H")  # the number of torch's threads
        self.wiring: array[int] = array("Q")  # by which operations what it reads was written
        #: The forward operation of one of the backward; else -1.
        self.forward: array[int] = array("q")
        self._ends: array[int] = array("Q")
        self._what: array[int] = array("H")
        self._digests: array[int] = array("Q")
        self._sums: dict[torch.device, DeviceSums] = {}

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def nbytes(self) -> int:
        """The memory of the records in bytes, without the tables."""
        return sum(len(one) * one.itemsize for one in vars(self).values() if type(one) is array)

    def add_entry(self, place: int, kind: int, value: int | torch.Tensor, form: int = 0) -> None:
        """Add a digest of the operation that `add` adds next.

        A sum on a device is mixed with `form`, the hash of dtype and shape, when it is read.
        """
        self._what.append(min(place, 2**14 - 1) << 2 | kind)
        if isinstance(value, torch.Tensor):
            sums = self._sums.setdefault(value.device, DeviceSums())
            sums.add(value, len(self._digests))
            value = form
        self._digests.append(value)

    def add(
        self, operation: int, constants: int, place: int, lane: int, forward: int, wiring: int
    ) -> None:
        self.operations.append(operation)
        self.constants.append(constants)
        self.places.append(place)
        self.lanes.append(min(lane, 2**16 - 1))
        self.threads.append(min(torch.get_num_threads(), 2**16 - 1))
        self.forward.append(forward)
        self.wiring.append(wiring)
        self._ends.append(len(self._digests))

    def finish(self) -> None:
        """Copy the sums from the devices. The trace is complete then."""
        for sums in self._sums.values():
            for target, value in sums.read():
                self._digests[target] ^= value
        self._sums = {}

    def entries(self, index: int) -> list[Entry]:
        first = self._ends[index - 1] if index else 0
        return [
            Entry(self._what[i] >> 2, self._what[i] & 3, self._digests[i])
            for i in range(first, self._ends[index])
        ]

    def equals(self, other: Trace) -> bool:
        """Return whether all records are equal, byte for byte."""
        ours, theirs = vars(self), vars(other)
        names = [
            name
            for name, one in ours.items()
            if type(one) is array and name not in ("places", "wiring")
        ]
        return all(ours[name] == theirs[name] for name in names)

    def lane(self, number: int) -> list[int]:
        """Return the indices of the operations of one thread."""
        return [index for index, lane in enumerate(self.lanes) if lane == number]

    def operation(self, index: int) -> str:
        return str(self.tables.operations.values[self.operations[index]])
