"""Draws an epoch of an iterable dataset of which each rank and each worker has a share."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta

import torch
from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from seedscope import seeded_loader


class Shares(IterableDataset):
    def __init__(self, rank: int, ranks: int) -> None:
        self.rank, self.ranks = rank, ranks

    def __iter__(self):
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(self.rank * count + number, 16, self.ranks * count):
            yield torch.tensor([float(index), torch.rand(1).item()])


def main(out: str, rank: int, ranks: int) -> None:
    if ranks > 1:
        options = {"rank": rank, "world_size": ranks, "timeout": timedelta(seconds=60)}
        distributed.init_process_group("gloo", init_method=f"file://{out}/store", **options)
    found = {}
    for name, more in {
        "0": {},
        "2 forked": {"num_workers": 2, "multiprocessing_context": "fork"},
        "2 spawned": {"num_workers": 2, "multiprocessing_context": "spawn"},
    }.items():
        loader = seeded_loader(Shares(rank, ranks), 1029, batch_size=2, **more)
        loader.set_epoch(1)
        found[name] = [batch.tolist() for batch in loader]
        state = loader.state_dict()
    with open(f"{out}/{rank}.json", "w") as file:
        json.dump({"batches": found, "state": state}, file)
    if ranks > 1:
        distributed.barrier()  # gloo may abort a rank that leaves while another still talks to it


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    # All is written. torch may abort a rank while its interpreter shuts down.
    sys.stdout.flush()
    os._exit(0)
