"""Trains on the digits, and saves after each step; continues from a checkpoint if there is one.

Usage: train_resumable.py CHECKPOINT [STEP TO BE KILLED AT]
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset

from seedscope import SeededDataset, Snapshot, Stream, derive_seed, seeded, snapshot

EPOCHS, BATCHES, BATCH = 3, 6, 32


class Digits(torch.utils.data.Dataset):
    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        self.x = torch.tensor(images[: BATCHES * BATCH], dtype=torch.float32) / 16
        self.y = torch.tensor(labels[: BATCHES * BATCH])

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.1 * torch.randn(64), self.y[index]


def save(checkpoint: Path, state: dict) -> None:
    torch.save(state, checkpoint.with_suffix(".new"))
    os.replace(checkpoint.with_suffix(".new"), checkpoint)


def main(path: str, kill_at: int = -1) -> None:
    checkpoint = Path(path)
    with seeded(1029):
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    data = SeededDataset(Digits(), 1029)
    dropout = Stream(1029, "dropout")
    torch.manual_seed(77)  # numbers drawn outside of any scope continue too
    epoch = position = step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        dropout.load_state_dict(state["dropout"])
        Snapshot.from_state_dict(state["snapshot"]).restore()
        epoch, position, step = state["where"]
    outside = torch.zeros(1)
    while epoch < EPOCHS:
        data.set_epoch(epoch)
        order = torch.randperm(
            len(data), generator=torch.Generator().manual_seed(derive_seed(1029, "order", epoch))
        )
        rest = Subset(data, order[position * BATCH :].tolist())
        # The loader's own generator: making its iterator draws nothing from torch's generator.
        for x, y in DataLoader(rest, BATCH, generator=torch.Generator()):
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            with dropout:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            outside = torch.rand(1)
            position, step = position + 1, step + 1
            save(
                checkpoint,
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "dropout": dropout.state_dict(),
                    "snapshot": snapshot().state_dict(),
                    "where": (epoch, position, step),
                },
            )
        epoch, position = epoch + 1, 0
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    print(step, hashlib.sha256(weights + outside.numpy().tobytes()).hexdigest())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
