"""The generators of all torch accelerators: CUDA, XPU, MPS, MTIA and a registered backend."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..support.showing import shown
from ..support.torch_internals import (
    Waiting,
    has_queue,
    is_compiled,
    queued_calls,
    read_waiting,
    write_waiting,
)
from .base import Source, decoded_bytes

# The bytes of a generator's state, for devices that this process may lack. CUDA and XPU have
# a seed and an offset, which counts in steps of 4. MPS has seven words of 32 bits and a seed.
# https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/cuda/CUDAGeneratorImpl.cpp
# https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/mps/MPSGeneratorImpl.mm
_SIZES = {"cuda": 16, "xpu": 16, "mps": 36}
_HAVE_OFFSETS = ("cuda", "xpu")

# The stack text that torch prints if a queued call fails while a device is initialised.
_QUEUED_BY = ["queued by seedscope\n"]


@dataclass(eq=False)
class Wake:
    """A queued call that seeds an accelerator if it is initialised inside the block.

    The call first runs the seeds that were queued before the block and keeps the resulting
    states, which the caller would have had without the block. Then it seeds.
    """

    accelerator: Accelerator
    before: Waiting
    seed: int
    states: list[torch.Tensor] = field(default_factory=list)

    def __call__(self) -> None:
        for callback, _ in filter(None, self.before.order):
            callback()
        self.states = self.accelerator.states()
        self.accelerator.seed_generators(self.seed)


class Accelerator(Source):
    """All generators of one kind of device, with one state for each device.

    A scope never initialises a device module, launches no kernel and does not synchronise:
    `Generator.get_state`, `set_state` and `manual_seed` work on the host.

    A device module whose queued calls cannot be read is left alone until it is initialised.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.module: Any = getattr(torch, name)
        backend: Any = getattr(torch.backends, name, None)
        # Whether this build of torch can initialise the device.
        has_backend = hasattr(backend, "is_built")
        self.is_built: bool = backend.is_built() if has_backend else is_compiled(self.module)

    def is_running(self) -> bool:
        """Return whether the generators exist; False in a forked child that must not use them."""
        if not self.is_built or (module := self.module) is None:
            return False
        if hasattr(module, "is_initialized"):
            return bool(module.is_initialized())
        # MPS and simple backends are initialised by their first use.
        return hasattr(module, "get_rng_state") and bool(module.is_available())

    def capture(self) -> list[torch.Tensor] | Waiting | None:
        if not self.is_built or (module := self.module) is None:
            return None  # calls queued for such a device never run
        if self.is_running():
            if getattr(module, "is_current_stream_capturing", bool)():
                raise RuntimeError(
                    f"a scope cannot be entered while a {self.name} graph is being captured: "
                    "generators cannot be seeded or restored there. Enter the scope around the "
                    "whole capture, or around each replay."
                )
            return self.states()
        return read_waiting(module)

    def seed(self, seed: int) -> None:
        module = self.module
        if self.is_running():
            self.seed_generators(seed)
        elif (before := read_waiting(module)) is not None:
            # Queue an ordinary call and empty the tracker: a seed that the block itself sets
            # then runs later and wins, as in torch.
            wake = Wake(self, before, seed)
            write_waiting(module, Waiting(None, None, [], [*before.queue, (wake, _QUEUED_BY)]))

    def restore(self, state: list[torch.Tensor] | Waiting) -> None:
        module = self.module
        running = self.is_running()
        if isinstance(state, Waiting):
            if not running:
                write_waiting(module, state)
            else:
                self._restore_started(module, state)
        elif not self.is_built:
            warnings.warn(
                f"the saved state has {len(state)} {self.name} generators, but this build of torch "
                f"has no {self.name}: their states were dropped",
                stacklevel=2,
            )
        elif running or not has_queue(module):
            self.set_states(state)
        else:
            # Saved from an initialised device, for instance in a checkpoint: set the states later.
            later = (lambda: self.set_states(state), _QUEUED_BY)
            write_waiting(module, Waiting(None, None, [], [*queued_calls(module), later]))

    def resume(self, seed: int, state: list[torch.Tensor] | Waiting) -> None:
        if not self.is_running():
            self.seed(seed)  # keeps the caller's state if the device is initialised inside
        self.restore(state)

    def fingerprint(self) -> list[torch.Tensor] | None:
        return self.states() if self.is_running() else None

    def last_seeds(self) -> list[int]:
        generators = getattr(self.module, "default_generators", ()) if self.is_running() else ()
        return [generator.initial_seed() for generator in generators]

    def encode(self, state: list[torch.Tensor] | Waiting | None) -> list[torch.Tensor] | None:
        # What a library loads into the saved tensors must not change ours.
        return [one.clone() for one in state] if isinstance(state, list) else None

    def decode(self, payload: Any) -> list[torch.Tensor]:
        if not isinstance(payload, list):
            raise ValueError(
                f"expected a list with one tensor for each device, got {shown(payload)}"
            )
        states = [decoded_bytes(one, _SIZES.get(self.name)) for one in payload]
        if self.name in _HAVE_OFFSETS and any(int(state[8]) % 4 for state in states):
            raise ValueError("the offset of a generator must be a multiple of 4")
        # A device that runs knows best. Its own generator stays as it is.
        generators = getattr(self.module, "default_generators", ()) if self.is_running() else ()
        for generator, state in zip(generators, states, strict=False):
            generator.clone_state().set_state(state)
        return states

    def states(self) -> list[torch.Tensor]:
        module = self.module
        if generators := getattr(module, "default_generators", ()):
            return [generator.get_state() for generator in generators]
        return [module.get_rng_state(index) for index in range(module.device_count())]

    def set_states(self, states: list[torch.Tensor]) -> None:
        module = self.module
        generators = getattr(module, "default_generators", ())
        present = len(generators) or module.device_count()
        if present < len(states):
            warnings.warn(
                f"the saved state has {len(states)} {self.name} generators, this process has "
                f"{present}: the states of the others were dropped",
                stacklevel=2,
            )
        for index, state in enumerate(states[:present]):
            if generators:
                generators[index].set_state(state)
            else:
                module.set_rng_state(state, index)

    def seed_generators(self, seed: int) -> None:
        module = self.module
        if generators := getattr(module, "default_generators", ()):
            for generator in generators:
                generator.manual_seed(seed)
        elif hasattr(module, "manual_seed_all"):
            module.manual_seed_all(seed)
        else:
            module.manual_seed(seed)

    def _restore_started(self, module: Any, before: Waiting) -> None:
        """Restore a now initialised accelerator to the states that `before` would have led to."""
        for call, _ in queued_calls(module):
            if isinstance(call, Wake) and call.before == before and call.states:
                self.set_states(call.states)
                return
        # No Wake ran at initialisation. Run the queued calls now: the seed of a scope that is
        # still open, or else fresh entropy, and then the seeds that the user had queued.
        seeds = [call.seed for call, _ in before.queue if isinstance(call, Wake)]
        if seeds:
            self.seed_generators(seeds[-1])
        else:
            for generator in getattr(module, "default_generators", ()):
                generator.seed()
        for callback, _ in filter(None, before.order):
            callback()


class RegisteredAccelerator(Accelerator):
    """The backend registered with `torch.utils.rename_privateuse1_backend`, if any."""

    is_built = True

    def __init__(self) -> None:
        self._device = torch.device("privateuseone")

    @property
    def name(self) -> str:  # type: ignore[override]
        return self._device.type  # the registered name

    @property
    def module(self) -> Any:
        return vars(torch).get(self.name)

    def last_seeds(self) -> list[int]:
        # The watch does not know by which functions users restore it. `torch.manual_seed` is
        # noticed by torch's CPU generator.
        return []


def accelerators() -> Iterable[Accelerator]:
    """Return a source for each kind of device that torch knows, present or not."""
    return (*map(Accelerator, ("cuda", "xpu", "mps", "mtia")), RegisteredAccelerator())
