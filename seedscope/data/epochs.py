"""Epochs: check one, and find who must be told."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from typing import Any

from torch.utils.data import ChainDataset, ConcatDataset, StackDataset, Subset

from ..support.showing import shown

#: The number of a call of `set_epoch` that never was.
NEVER = -math.inf

_tellings = itertools.count(1)


def next_telling() -> int:
    """Return a number for a call of `set_epoch`, larger than that of any call before."""
    return next(_tellings)


def aged(telling: float) -> float:
    """Return the number of a call for a pickle: smaller than all of the process that loads it."""
    return telling - 2**62


def check_epoch(epoch: Any) -> int:
    """Return `epoch` as an integer in [0, 2**63)."""
    if isinstance(epoch, bool) or not hasattr(epoch, "__index__"):
        raise TypeError(f"epoch must be an integer, got {shown(epoch)} ({type(epoch).__name__})")
    value = operator.index(epoch)
    if not 0 <= value < 2**63:
        raise ValueError(f"epoch must be in [0, 2**63), got {shown(value)}")
    return value


def listeners(dataset: Any) -> Iterator[Any]:
    """Yield a dataset that has a `set_epoch`, or those inside of it that have one."""
    if callable(getattr(dataset, "set_epoch", None)):
        yield dataset
    elif isinstance(dataset, Subset):
        yield from listeners(dataset.dataset)
    elif isinstance(dataset, (ConcatDataset, StackDataset, ChainDataset)):
        parts: Any = dataset.datasets
        parts = parts.values() if isinstance(parts, dict) else parts
        for one in parts if hasattr(parts, "__len__") else ():  # not an iterator, for once
            yield from listeners(one)
