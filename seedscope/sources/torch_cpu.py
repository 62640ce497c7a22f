"""torch's CPU generator."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from .base import Source


class TorchCPU(Source):
    """The default CPU generator.

    The source calls the generator's own methods: `torch.manual_seed` would also queue a seed
    for every accelerator that is not initialised, and format the stack for each.
    """

    name = "torch"

    def __init__(self) -> None:
        self._last_seed = -1

    def capture(self) -> torch.Tensor:
        return torch.default_generator.get_state()

    def seed(self, seed: int) -> None:
        again, self._last_seed = seed == self._last_seed, seed
        if again:
            torch.default_generator.set_state(_seeded_state(seed))
        else:
            torch.default_generator.manual_seed(seed)

    def restore(self, state: torch.Tensor) -> None:
        torch.default_generator.set_state(state)

    def last_seeds(self) -> list[int]:
        return [torch.default_generator.initial_seed()]

    def decode(self, payload: Any) -> Any:
        torch.Generator().set_state(payload)  # a scratch generator refuses a damaged state
        return payload


@lru_cache(maxsize=1)
def _seeded_state(seed: int) -> torch.Tensor:
    """Return the state that `manual_seed(seed)` produces. The cache holds one seed."""
    return torch.Generator().manual_seed(seed).get_state()
