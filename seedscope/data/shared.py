"""The numbers that a dataset shares with its worker processes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import get_worker_info

_EPOCH, _FLAGS, _COUNTS = range(3)  # places in the memory
_COUNTERS = 64

#: What is counted: each worker has a counter of each.
DRAWS, PASSES = range(2)

# Flags: whether an epoch was set, whether a sample has drawn numbers, and what was warned of.
SET, DREW, TOLD_EPOCH, TOLD_INDEX, TOLD_HELD = (1 << bit for bit in range(5))


class Shared:
    """The epoch, what has been told, and how much was drawn, in memory that workers share.

    A persistent worker so sees a new epoch without a restart. A pickle for a spawned worker refers
    to the same memory; a copy has memory of its own.
    """

    def __init__(self) -> None:
        tensor: Any = torch.zeros((2 + 2 * _COUNTERS,), dtype=torch.int64, device="cpu")
        self._tensor: Any = tensor.share_memory_()
        self._view = memoryview(self._tensor.numpy())  # the same memory, faster to read

    @property
    def epoch(self) -> int:
        return self._view[_EPOCH]

    def set_epoch(self, epoch: int) -> None:
        self._view[_EPOCH] = epoch
        self._view[_FLAGS] |= SET

    def has(self, flag: int) -> bool:
        return bool(self._view[_FLAGS] & flag)

    def add(self, flag: int) -> None:
        self._view[_FLAGS] |= flag

    def count(self, what: int, by: int = 1) -> int:
        """Add to this process's counter, and return how far it has counted."""
        worker = get_worker_info()
        # Each worker has a counter of its own, because an addition in shared memory is two steps.
        number = 0 if worker is None else 1 + worker.id % (_COUNTERS - 1)
        place = _COUNTS + what * _COUNTERS + number
        self._view[place] += by
        return self._view[place]

    def counted(self, what: int) -> int:
        """Return the sum of the counters of all processes."""
        begin = _COUNTS + what * _COUNTERS
        return sum(self._view[begin : begin + _COUNTERS])

    def __copy__(self) -> Shared:
        copied = Shared()
        copied._view[:] = self._view
        return copied

    def __deepcopy__(self, memo: Any) -> Shared:
        return self.__copy__()

    def __getstate__(self) -> Any:
        return self._tensor

    def __setstate__(self, tensor: Any) -> None:
        self._tensor = tensor.share_memory_()  # as it is in a spawned worker
        self._view = memoryview(self._tensor.numpy())
