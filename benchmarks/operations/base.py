"""What an operation of the atlas is, and the inputs that it is run on.

Inputs are made once, and an operation is run on them again and again. Where many sources add
into few places, differences in the order of additions show; so most have many collisions.
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

    `entries` are names on the lists, as they stand there: alerts, operator tests, documentation.
    """

    name: str
    make: Callable[[Inputs], Call]
    entries: tuple[str, ...] = ()


class Inputs:
    """Makes the inputs on a device; `n` is the number of sources where many add into few."""

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
        """A batch of signals, images or volumes."""
        side = {1: self.side * 16, 2: self.side, 3: self.side // 4}[dims]
        return self.randn(self.batch, channels, *[side] * dims)


def gradient(function: Callable[..., Any], *inputs: torch.Tensor, of: int = 0) -> Call:
    """A call that gives the gradient of `function`'s (first) output in one of its inputs."""
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
