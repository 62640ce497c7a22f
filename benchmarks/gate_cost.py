"""What a closed gate costs: small calls before the kernels are registered, and after."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch

from seedscope.replacements import kernels, remove

from .harness import Samples, measure, paired, summary
from .peers import SEED

LISTED = ("put_", "max_unpool2d")
OTHERS = ("add", "mm")
_BLOCKS = 5


def gate_cost(device: str, rounds: int, block_s: float) -> dict[str, Any]:
    """Return microseconds of each call without and with kernels, the difference and the ratio.

    No scope is open, so that torch's own kernels run. The kernels are registered and removed in
    each round, in a random order, and a round keeps the median of a few blocks.
    """
    calls, order = _calls(device), random.Random(SEED)
    samples: dict[bool, dict[str, Samples]] = {
        has_kernels: {name: [] for name in calls} for has_kernels in (False, True)
    }
    for _ in range(rounds):
        for has_kernels in order.sample([False, True], 2):
            kernels.install() if has_kernels else remove()
            blocks = measure(calls, rounds=_BLOCKS, block_s=block_s)[0]
            for name, values in blocks.items():
                samples[has_kernels][name].append(median(values))
    kernels.install()
    found = {}
    for name in calls:
        before, after = samples[False][name], samples[True][name]
        more = summary(b - a for a, b in zip(before, after, strict=True))
        times = {"before_us": summary(before), "after_us": summary(after), "more_us": more}
        found[name] = {**times, "ratio": paired(after, before)}
    return found


def _calls(device: str) -> dict[str, Callable[[], object]]:
    values, matrix = torch.ones(8, device=device), torch.ones(8, 8, device=device)
    index = torch.arange(8, device=device)
    maxima, places = torch.nn.functional.max_pool2d(matrix[None, None], 2, return_indices=True)
    unpool: Any = torch.ops.aten.max_unpool2d
    return {
        "put_": partial(values.put_, index, values.clone()),
        "max_unpool2d": partial(unpool, maxima, places, [8, 8]),
        "add": partial(torch.add, values, values),
        "mm": partial(torch.mm, matrix, matrix),
    }
