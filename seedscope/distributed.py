"""Seeds for distributed training."""

from __future__ import annotations

import os
import warnings
from typing import Any

from torch import distributed

from .seeds import check_seed, derive_seed, fresh_seed


def rank_seed(seed: int) -> int:
    """Return a seed for this rank, by `derive_seed` and never by addition.

    Use the plain `seed` for the initial weights, which must be equal on every rank. Use the
    rank's seed for values that must differ between ranks, such as dropout masks. Without an
    initialised process group, warn and return the seed of rank 0.
    """
    check_seed(seed)
    return derive_seed(seed, "rank", distributed.get_rank() if _has_group("rank_seed") else 0)


def shared_seed(group: Any = None) -> int:
    """Return a fresh seed that the group's first rank draws and all its ranks share.

    Every rank of the group (all ranks by default) must call `shared_seed`. Without an
    initialised process group, warn and return a fresh seed.
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
        f"{function}(): no process group is initialised, so this process counts as alone{hint}",
        stacklevel=3,
    )
    return False
