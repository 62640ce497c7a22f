"""Seeds where several processes train together."""

from __future__ import annotations

import os
import warnings
from typing import Any

from torch import distributed

from .seeds import check_seed, derive_seed, fresh_seed


def rank_seed(seed: int) -> int:
    """Return this rank's own seed, by `derive_seed` and never by addition.

    The plain `seed` is the same on every rank, as the initial weights must be; with this
    one each rank has dropout masks of its own. Without an initialised process group it
    is rank 0's, and a warning says so.
    """
    check_seed(seed)
    return derive_seed(seed, "rank", distributed.get_rank() if _has_group("rank_seed") else 0)


def shared_seed(group: Any = None) -> int:
    """Return a fresh seed that the group's first rank draws and every rank gets.

    Every rank of the group (all ranks by default) must call it. Without an initialised
    process group it is a fresh seed, and a warning says so.
    """
    if not _has_group("shared_seed"):
        return fresh_seed()
    seeds = [fresh_seed()]
    source = 0 if group is None else distributed.get_global_rank(group, 0)
    distributed.broadcast_object_list(seeds, src=source, group=group)
    return seeds[0]


def _has_group(function: str) -> bool:
    if distributed.is_available() and distributed.is_initialized():
        return True
    hint = (
        f"; RANK={os.environ['RANK']} is set: call torch.distributed.init_process_group() first"
        if "RANK" in os.environ
        else ""
    )
    warnings.warn(
        f"{function}(): no process group is initialised, so this is one process alone{hint}",
        stacklevel=3,
    )
    return False
