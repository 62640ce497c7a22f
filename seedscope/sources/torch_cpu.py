"""torch's CPU generator."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Any

import torch

from .base import Source, decoded_bytes
from .mersenne import can_go_on

# struct CPUGeneratorImplState: uint64 seed; int left; int seeded; uint64 next;
# uint64 state[624]; double x, y, rho; int has_y; float sample; bool has_sample. The word at
# `next` is drawn next, and with the draw number `left` come new words.
# https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/CPUGeneratorImpl.cpp
_LAYOUT = struct.Struct("=QiiQ624Q3di4xf?3x")


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

    def encode(self, state: torch.Tensor) -> torch.Tensor:
        return state.clone()  # what a library loads into the saved tensor must not change ours

    def decode(self, payload: Any) -> torch.Tensor:
        scratch = torch.Generator()
        state = decoded_bytes(payload, scratch.get_state().numel())
        scratch.set_state(state)  # refuses some damage, and truncates the rest
        if not (torch.equal(scratch.get_state(), state) and _is_possible(state)):
            raise ValueError("the state is none that this generator can have")
        return state


@lru_cache(maxsize=1)
def _seeded_state(seed: int) -> torch.Tensor:
    """Return the state that `manual_seed(seed)` produces. The cache holds one seed."""
    return torch.Generator().manual_seed(seed).get_state()


def _is_possible(state: torch.Tensor) -> bool:
    """Return whether a generator can have a state that torch has accepted.

    torch checks `left` and `next` one by one. If they do not fit, it reads outside of the words.
    """
    if state.numel() != _LAYOUT.size:
        return True  # another layout, whose checks are torch's own
    _, left, _, following, *words, _, y, _, _, sample, _ = _LAYOUT.unpack(state.numpy().tobytes())
    fits = left + following == len(words) + 1 or (left, following) == (1, 0)  # just seeded
    return fits and can_go_on(words) and math.isfinite(y) and math.isfinite(sample)
