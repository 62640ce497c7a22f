"""Two processes that diagnose a step with an asynchronous collective."""

from __future__ import annotations

import os
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from seedscope import diagnose


def step() -> torch.Tensor:
    values = torch.rand(1_000_000) + dist.get_rank()
    work = dist.all_reduce(values, async_op=True)
    work.wait()
    return (values * 2).sum()


def differing() -> torch.Tensor:
    return step() * (time.perf_counter_ns() % 1_000_003)


def say(text: str) -> None:
    """Print in one piece: both processes write to the same pipe."""
    os.write(1, f"{text}\n".encode())


def worker(rank: int, file: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    say(str(diagnose(step, seed=3)))
    # In one process alone: a second look would wait for the other one for ever.
    report = diagnose(differing if rank else step, seed=3)
    say(f"rank {rank} {report.reproducible} {report.notes}")
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(worker, (sys.argv[1],), nprocs=2)
