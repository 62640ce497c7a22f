"""The settings that `cost` compares, and how long it measures each."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..scope.scope import Scope
from ..scope.seeded import seeded
from ..support.modes import Deterministic

SEED = 1029


@dataclass(frozen=True)
class Configuration:
    """The settings under which a step runs, named as the options of `seeded`."""

    name: str
    deterministic: Deterministic = False
    fill: bool | None = None
    benchmark: bool = False
    backend: str | None = None  # the pinned backend of scaled_dot_product_attention
    replacements: bool = True

    @contextmanager
    def open(self, seed: int = SEED) -> Iterator[Scope]:
        opener = seeded(
            seed,
            deterministic=self.deterministic,
            replacements=self.replacements,
            fill_uninitialized_memory=self.fill,
        )
        with opener as scope, contextlib.ExitStack() as stack:
            # The scope restores the switch.
            torch.backends.cudnn.benchmark = self.benchmark
            if self.backend is not None:
                from torch.nn.attention import SDPBackend, sdpa_kernel

                stack.enter_context(sdpa_kernel(getattr(SDPBackend, self.backend)))
            yield scope


DEFAULT = Configuration("torch's defaults")
TUNED = Configuration("cudnn.benchmark = True", benchmark=True)
STRICT = Configuration("deterministic=True", True)
UNFILLED = Configuration("deterministic=True, no fill", True, fill=False)
CONFIGURATIONS = (
    DEFAULT,
    TUNED,
    Configuration('deterministic="cudnn"', "cudnn"),
    Configuration('deterministic="cudnn", benchmark', "cudnn", benchmark=True),
    Configuration('deterministic="warn"', "warn"),
    STRICT,
    UNFILLED,
)

#: Measured only where operations were replaced, and kept where the step runs without.
UNREPLACED = Configuration("deterministic=True, no replacements", True, replacements=False)


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: the number of rounds, each with a timed block for every setting.
        block_s: seconds of a block, about.
        repeats: the number of repeats from one seed in each process.
        steps: the number of steps in a repeat; a small difference grows with the steps.
        until: the value of `time.monotonic()` at which timing should end. To meet it, blocks
            are shortened, down to a step, and rounds are left out, down to 6.
    """

    rounds: int = 12
    block_s: float = 0.25
    repeats: int = 3
    steps: int = 10
    until: float = math.inf

    def block_for(self, count: int) -> float:
        """Return the seconds of a block when `count` configurations share the time."""
        return min(self.block_s, (self.until - time.monotonic()) / (self.rounds * count))

    def is_over(self, rounds: int) -> bool:
        """Return whether timing must end after `rounds` rounds."""
        return rounds >= 6 and time.monotonic() > self.until


AUTOTUNED = {configuration.name for configuration in CONFIGURATIONS if configuration.benchmark}
UNCHECKED = {
    configuration.name
    for configuration in CONFIGURATIONS
    if configuration.deterministic is not True
}
QUICK = Effort(rounds=5, block_s=0.05)


def benchmark_order(is_cuda: bool) -> list[bool]:
    """Return `cudnn.benchmark` of each process, in the order A B B A to cancel a slow drift."""
    return [False, True, True, False] if is_cuda else [False, False]


def configurations_of(
    configurations: Iterable[Configuration], benchmark: bool, is_cuda: bool
) -> list[Configuration]:
    """Return the configurations of a process; without a GPU, none that only set cuDNN."""
    return [
        a
        for a in configurations
        if a.benchmark == benchmark and (is_cuda or a.deterministic != "cudnn")
    ]
