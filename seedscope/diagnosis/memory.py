"""Which memory the operations of a run have written: all else comes from outside."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..support.digests import is_plain

#: The content is known from results before it; nothing has written to it.
KNOWN, EMPTY = 1, 2


class Memory:
    """The state of each storage that the operations of a run have made or read.

    Reads need no digest of memory that equal operations before have written.
    """

    def __init__(self) -> None:
        # A storage's Python object lives as long as the storage, and so does a reference to it.
        self._states: dict[int, tuple[Any, int, int]] = {}

    def state(self, tensor: Tensor) -> tuple[int | None, int]:
        """Return KNOWN, EMPTY, or None for memory from outside, and which operation set that."""
        found = self._states.get(id(storage_of(tensor)))
        return (None, -1) if found is None else found[1:]

    def set(self, tensor: Tensor, state: int | None, by: int = -1) -> None:
        """Set the state of the memory of a tensor, by the operation of that number."""
        storage = storage_of(tensor)
        if storage is None:
            return
        key = id(storage)
        if state is None:
            self._states.pop(key, None)
        elif (found := self._states.get(key)) is not None:
            self._states[key] = found[0], state, by
        else:
            # A function of C: in one of Python, Ctrl-C could come, and would be lost.
            forget = partial(self._states.pop, key)
            self._states[key] = weakref.ref(storage, forget), state, by

    def write(self, tensor: Tensor, by: int) -> None:
        """Note that an operation has written to `tensor`: all of its memory, or a part."""
        if self.state(tensor)[0] is KNOWN or covers(tensor):
            self.set(tensor, KNOWN, by)


def storage_of(tensor: Tensor) -> torch.UntypedStorage | None:
    """Return the storage; None for a tensor that has none of its own, such as a sparse one."""
    return tensor.untyped_storage() if is_plain(tensor) else None


def storage_id(tensor: Tensor) -> int | None:
    """Return what identifies the storage while it lives."""
    storage = storage_of(tensor)
    return None if storage is None else id(storage)


def memory_size(tensor: Tensor) -> int:
    """Return the number of bytes of the memory behind a tensor."""
    storage = storage_of(tensor)
    return 0 if storage is None else storage.nbytes()


def covers(tensor: Tensor) -> bool:
    """Return whether a tensor is the whole of its memory."""
    storage = storage_of(tensor)
    return storage is not None and tensor.nbytes == storage.nbytes() and 0 not in tensor.stride()
