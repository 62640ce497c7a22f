"""Trains on the digits with DistributedDataParallel; prints one JSON line per rank."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from datetime import timedelta

import torch
from sklearn.datasets import load_digits
from torch import distributed, nn

from seedscope import evaluating, rank_seed, seeded, shared_seed


def main(out: str) -> None:
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = distributed.get_rank()
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32)[rank::4]
    y = torch.tensor(labels)[rank::4]

    with seeded(1029):  # the same initial weights on every rank
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
        plain_mask = nn.functional.dropout(torch.ones(64), 0.5)
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), 0.05)
    with seeded(rank_seed(1029)):  # this rank's own dropout masks and batches
        rank_mask = nn.functional.dropout(torch.ones(64), 0.5)
        for _ in range(20):
            batch = torch.randint(0, len(x), (32,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(parallel(x[batch]), y[batch]).backward()
            optimizer.step()

    model[2].eval()
    with evaluating(parallel):
        modes = [module.training for module in parallel.modules()]
        scores = parallel(x[:8])
    with evaluating(parallel):
        assert torch.equal(parallel(x[:8]), scores)
    assert not any(modes)
    assert parallel.training
    assert model.training
    assert not model[2].training

    pair = distributed.new_group([1, 3])
    result = {
        "weights": hashlib.sha256(
            b"".join(p.detach().numpy().tobytes() for p in model.parameters())
        ).hexdigest(),
        "plain": plain_mask.tolist(),
        "rank": rank_mask.tolist(),
        "seed": rank_seed(1029),
        "shared": shared_seed(),
        "pair": shared_seed(pair) if rank in (1, 3) else None,
    }
    with open(f"{out}/{rank}.json", "w") as file:
        json.dump(result, file)
    distributed.barrier()  # gloo may abort a rank that leaves while another still talks to it
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
    # All is written. On a busy machine, a thread of torch sometimes aborts a rank while its
    # interpreter shuts down: "terminate called without an active exception".
    sys.stdout.flush()
    os._exit(0)
