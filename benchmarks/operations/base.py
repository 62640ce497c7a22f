"""The operations of the atlas, and their inputs.

Inputs are made once, and an operation runs on them again and again. Most inputs have many
collisions: many elements add into few places, so that the order of the additions shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..items import Scale

Call = Callable[[], Any]


@dataclass(frozen=True)
class Operation:
    """One row of the atlas.

    `entries` are the operation's names on the lists: alerts, operator tests, documentation.
    """

    name: str
    make: Callable[[Inputs], Call]
    entries: tuple[str, ...] = ()


class Inputs:
    """Makes inputs on a device; `n` is the number of elements that add into few places."""

    def __init__(self, scale: Scale) -> None:
        self.device = scale.device
        self.small = scale.small
        self.n = 2**15 if scale.small else 2**20
        self.side = 16 if scale.small else 64
        self.batch = 2 if scale.small else 8

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device)

    def below(self, limit: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, limit, shape, device=self.device)

    def image(self, dims: int, channels: int = 8) -> torch.Tensor:
        """Return a batch of signals, images or volumes."""
        side = {1: self.side * 16, 2: self.side, 3: self.side // 4}[dims]
        return self.randn(self.batch, channels, *[side] * dims)


def gradient(function: Callable[..., Any], *inputs: torch.Tensor, of: int = 0) -> Call:
    """Return a call that computes the gradient of `function`'s (first) output in one input."""
    leaves = [
        x.detach().requires_grad_(x.is_floating_point() and i == of) for i, x in enumerate(inputs)
    ]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        weight = torch.randn_like(first(function(*leaves)))

    def call() -> Any:
        return torch.autograd.grad(first(function(*leaves)), leaves[of], weight)[0]

    return call


def first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def on_floats(function: Callable[..., Any], *shape: int, back: bool = False) -> Any:
    def make(t: Inputs) -> Call:
        x = t.randn(*(shape or (t.n,)))
        return gradient(function, x) if back else lambda: function(x)

    return make
