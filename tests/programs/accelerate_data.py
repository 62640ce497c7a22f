"""Draws two epochs of a seeded_loader that Accelerate shares among the ranks."""

from __future__ import annotations

import json
import os
import sys

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import IterableDataset

from seedscope import seeded_loader
from small_data import SEED, Noisy, mix


class Stream(IterableDataset):
    """A stream of which Accelerate gives each rank its share: all must draw it alike."""

    def __iter__(self):
        for index in torch.randperm(16).tolist():
            yield torch.tensor([float(index), torch.rand(1).item()])


def main(out: str) -> None:
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    options = {"batch_size": 4, "shuffle": True, "collate_fn": mix}

    try:
        next(iter(accelerator.prepare(seeded_loader(Noisy(), SEED, **options))))
        message = ""
    except RuntimeError as error:
        message = str(error)

    batches = accelerator.prepare(seeded_loader(Noisy(), SEED, num_replicas=1, **options))
    epochs = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        epochs.append([batch.tolist() for batch in batches])
    shared = Accelerator(
        cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False)
    )
    streamed = shared.prepare(seeded_loader(Stream(), SEED, batch_size=4))
    stream = [batch.tolist() for batch in streamed]
    rest = [batch.tolist() for batch in skipped(accelerator, batches)]

    with open(f"{out}/{accelerator.process_index}.json", "w") as file:
        json.dump({"message": message, "epochs": epochs, "rest": rest, "stream": stream}, file)
    accelerator.wait_for_everyone()  # gloo may abort a rank that leaves while another still talks


def skipped(accelerator, batches):
    """Return epoch 1 without the first batch of each rank."""
    batches.set_epoch(1)
    return accelerator.skip_first_batches(batches, 1)


if __name__ == "__main__":
    main(sys.argv[1])
    # All is written. torch may abort a rank while its interpreter shuts down.
    sys.stdout.flush()
    os._exit(0)
