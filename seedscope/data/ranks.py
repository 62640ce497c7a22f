"""The ranks of distributed training, and which one this process is."""

from __future__ import annotations

import operator
from typing import Any

from torch import distributed

from ..support.showing import shown


def group_rank() -> tuple[int, int] | None:
    """Return this process's rank and the number of ranks; None without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return None


def check_ranks(num_replicas: Any, rank: Any) -> tuple[int, int]:
    """Return the rank and the number of ranks; by default those of the process group, or 0 of 1.

    Raises:
        TypeError: one of them is not an integer.
        ValueError: one of them is missing, or out of range.
    """
    for name, value in (("num_replicas", num_replicas), ("rank", rank)):
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__")):
            kind = type(value).__name__
            raise TypeError(f"{name} must be an integer, got {shown(value)} ({kind})")
    group = group_rank()
    if num_replicas is None and rank is None:
        return 0, 1  # until the sampler is used
    if num_replicas is None:
        if group is None:
            raise ValueError(f"rank={rank} needs num_replicas, the number of ranks: pass both")
        num_replicas = group[1]
    count = operator.index(num_replicas)
    if count < 1:
        raise ValueError(f"num_replicas must be at least 1, got {count}")
    if rank is None and count > 1 and group is None:
        raise ValueError(
            f"num_replicas={count} needs a rank: no process group is initialised, which has one"
        )
    number = operator.index((group[0] if group and count > 1 else 0) if rank is None else rank)
    if not 0 <= number < count:
        raise ValueError(f"rank must be from 0 to {count - 1}, got {number}")
    return number, count
