"""torch's CPU generator."""

from __future__ import annotations

from typing import Any

import torch

from .base import Source


class TorchCPU(Source):
    """The default CPU generator.

    Its own methods are used, not `torch.manual_seed`: that one also queues a seed for
    every accelerator that is not initialised and formats the stack for each.
    """

    name = "torch"

    def capture(self) -> torch.Tensor:
        return torch.default_generator.get_state()

    def seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    def restore(self, state: torch.Tensor) -> None:
        torch.default_generator.set_state(state)

    def decode(self, payload: Any) -> Any:
        torch.Generator().set_state(payload)  # a scratch generator refuses a damaged state
        return payload
