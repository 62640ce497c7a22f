"""The settings that are compared, and how long each is measured."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..scope.seeded import seeded
from ..support.modes import Deterministic

SEED = 1029


@dataclass(frozen=True)
class Configuration:
    """A way to run a step, written as a user of `seeded` writes it."""

    name: str
    deterministic: Deterministic = False
    fill: bool | None = None
    benchmark: bool = False
    backend: str | None = None  # of scaled_dot_product_attention, pinned

    @contextmanager
    def open(self, seed: int = SEED) -> Iterator[None]:
        scope = seeded(seed, deterministic=self.deterministic, fill_uninitialized_memory=self.fill)
        with scope, contextlib.ExitStack() as stack:
            # The scope puts it back.
            torch.backends.cudnn.benchmark = self.benchmark
            if self.backend is not None:
                from torch.nn.attention import SDPBackend, sdpa_kernel

                stack.enter_context(sdpa_kernel(getattr(SDPBackend, self.backend)))
            yield


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


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds of blocks of about `block_s` seconds, and repeats.

    `repeats` are those of each process, of `steps` each: what differs in the first weights
    or gradients shows more the longer it goes on. `until`, on `time.monotonic()`, is when
    timing should end: blocks are shortened for it, down to a step, and rounds, down to 4.
    """

    rounds: int = 12
    block_s: float = 0.25
    repeats: int = 3
    steps: int = 10
    until: float = math.inf

    def block_for(self, count: int) -> float:
        """Return the seconds of a block that `count` configurations can have."""
        return min(self.block_s, (self.until - time.monotonic()) / (self.rounds * count))

    def is_over(self, rounds: int) -> bool:
        """Whether there is no time for more than `rounds`."""
        return rounds >= 6 and time.monotonic() > self.until


AUTOTUNED = {configuration.name for configuration in CONFIGURATIONS if configuration.benchmark}
UNCHECKED = {
    configuration.name
    for configuration in CONFIGURATIONS
    if configuration.deterministic is not True
}
QUICK = Effort(rounds=5, block_s=0.05)


def benchmark_order(is_cuda: bool) -> list[bool]:
    """The value of `cudnn.benchmark` in each process: A B B A, against a slow drift."""
    return [False, True, True, False] if is_cuda else [False, False]


def configurations_of(
    configurations: Iterable[Configuration], benchmark: bool, is_cuda: bool
) -> list[Configuration]:
    """Those of the process; without a GPU cuDNN's switches do nothing."""
    return [
        a
        for a in configurations
        if a.benchmark == benchmark and (is_cuda or a.deterministic != "cudnn")
    ]
