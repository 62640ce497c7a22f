"""`seedscope demo`: the same training script, twice bare and twice seeded.

The upper half is an ordinary script that does not use seedscope, and uses every kind of
randomness that training scripts use. The lower half runs the script and compares the results.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import nn
from torch.utils.data import DataLoader, Dataset

from .scope.seeded import note, seeded
from .snapshots import snapshot
from .support.remarks import is_terminal

# Forked workers inherit the scope. A spawned worker is a new process: PyTorch seeds its
# `random`, NumPy and torch, but nothing can reach its unseeded generators.
# macOS has fork, but the libraries of macOS may crash in the child.
FORKS = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"


class Digits(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Handwritten digits, with a random augmentation at each access."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images: torch.Tensor = images
        self.labels: torch.Tensor = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index].roll(random.randint(-1, 1), dims=2)  # shift
        image = image * (0.7 + 0.6 * torch.rand(1))  # brightness
        image += torch.from_numpy(np.random.normal(0, 0.1, image.shape)).float()
        if FORKS:
            row, column = np.random.default_rng().integers(0, 7, size=2)
            image[:, row : row + 2, column : column + 2] = 0  # cut out a patch
        return image, self.labels[index]


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(16 * 8 * 8, 10),
    )


def train(epochs: Iterable[int], device: torch.device) -> tuple[nn.Module, float]:
    """Return a network trained on the digits, and its accuracy on the last fifth of them."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    split = len(images) * 4 // 5
    loader = DataLoader(
        Digits(images[:split], labels[:split]),
        batch_size=64,
        shuffle=True,
        num_workers=2,
        multiprocessing_context="fork" if FORKS else "spawn",
        persistent_workers=True,
    )
    model = make_model().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    for _ in epochs:
        for batch, target in loader:
            batch, target = batch.to(device), target.to(device)
            # Mixup, on half of the batches.
            weight = np.random.beta(0.4, 0.4) if random.random() < 0.5 else 1.0
            order = torch.randperm(len(batch), device=device)
            output = model(weight * batch + (1 - weight) * batch[order])
            loss = weight * F.cross_entropy(output, target)
            loss = loss + (1 - weight) * F.cross_entropy(output, target[order])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    model.eval()
    with torch.no_grad():
        guesses = model(images[split:].to(device)).argmax(1).cpu()
    return model, (guesses == labels[split:]).float().mean().item()


def accuracy() -> float:
    """Return the accuracy after one training run, for `sweep` and `seedscope run`."""
    return train(range(10), choose_device("auto"))[1]


# ------------------------------------------------------------- run it and compare


@dataclass(frozen=True)
class Run:
    """The result of one training run, and the changes that the run left outside."""

    digest: str
    accuracy: float
    seconds: float
    changed: tuple[str, ...]  # the generators and settings outside that differ from before


def main(seed: int, epochs: int, device: torch.device) -> int:
    """Run the demo and print its table; return 1 if a promise was broken, else 0."""
    bare, inside = "bare", f"seeded({seed})"
    live = is_terminal(sys.stderr)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,  # no thread, since the loader forks workers
        disable=not live,
    )

    def run(name: str, ordinal: str) -> Run:
        steps = progress.track(range(epochs), description=f"{name}, {ordinal} run")
        before, start = snapshot(), time.perf_counter()
        with nullcontext() if name == bare else seeded(seed):
            model, accuracy = train(steps, device)
        seconds = time.perf_counter() - start
        changed = before.changed(snapshot())
        if not live:
            print(f"{name}, {ordinal} run: {seconds:.1f} s", file=sys.stderr)
        return Run(digest_of(model), accuracy, seconds, changed)

    # The two loader workers keep the processor busy, and several threads for a small network
    # would wait for each other: on two loaded cores a run takes 10 s with threads, 3 without.
    torch.set_num_threads(1)
    with progress:
        # Not measured: PyTorch loads libraries at the first training step.
        with seeded(seed):
            train(progress.track(range(1), description="warming up"), device)
        # In turns, so that the seeded runs start from different states outside.
        runs: dict[str, list[Run]] = {bare: [], inside: []}
        for ordinal in ("1st", "2nd"):
            for name in runs:
                runs[name].append(run(name, ordinal))

    length = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return report(runs, f"{length} on {device}", Console(highlight=False))


def digest_of(model: nn.Module) -> str:
    """Return 12 hexadecimal digits that change with any bit of the weights."""
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.cpu().numpy().tobytes())
    return sha.hexdigest()[:12]


def choose_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`.

    Raises:
        ValueError: `name` is `cuda`, and there is no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device: use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def report(runs: dict[str, list[Run]], what: str, console: Console) -> int:
    """Print the table of the runs and the verdict, and return the exit code."""
    table = Table(
        Column("run", overflow="fold"),
        "weights,\nsha256",
        Column("test\naccuracy", justify="right"),
        Column("time", justify="right"),
        "generators and settings\nchanged outside",
        title=f"  One training script, run four times ({what})",
        title_style="bold",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    same = _repeats(runs)
    for name, both in runs.items():
        for label, run in zip((name, "  again"), both, strict=True):
            table.add_row(
                label,
                Text(run.digest, "green" if same[name] else "yellow"),
                f"{run.accuracy:.1%}",
                f"{run.seconds:.1f} s",
                Text(", ".join(run.changed) or "nothing", "yellow" if run.changed else "green"),
            )
        table.add_section()
    console.print(table)
    return verdict(runs, console)


def _repeats(runs: dict[str, list[Run]]) -> dict[str, bool]:
    return {name: first.digest == second.digest for name, (first, second) in runs.items()}


def verdict(runs: dict[str, list[Run]], console: Console) -> int:
    """Print which runs repeat; return 1 if a promise was broken, else 0."""
    same = _repeats(runs)
    inside = list(runs)[-1]
    for name, repeats in same.items():
        found = "the same model again, bit for bit" if repeats else "another model the second time"
        console.print(f"  {name:{len(inside)}}   {found}", style="green" if repeats else "yellow")

    broken = [] if same[inside] else ["its two runs gave different weights"]
    if changed := {name for run in runs[inside] for name in run.changed}:
        broken.append(f"it left {', '.join(sorted(changed))} changed outside")
    if broken:
        why = ", and ".join(broken)
        console.print(f"\n  Broken promise of {inside}: {why}. Please report it.", style="bold red")
        return 1
    found = f"{inside} made the script repeat bit for bit, and left no trace outside."
    console.print(f"\n  {found}", style="bold green")
    return 0


if __name__ == "__main__":  # seedscope run -m seedscope.demo
    _found = accuracy()
    note(accuracy=_found)
    print(f"accuracy {_found:.1%}")
