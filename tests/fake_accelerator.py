"""A device module with four devices, without hardware.

It starts lazily, as torch.cuda does: the seed tracker is torch's own class, and
`init` runs queued calls and then tracked seeds, as `torch.cuda._lazy_init` does.
"""

from __future__ import annotations

import types

import torch

DEVICES = 4


def _check_hardware() -> None:
    pass


class FakeAccelerator(types.ModuleType):
    def __init__(self) -> None:
        super().__init__("torch.fake")
        self.reset()

    def reset(self) -> None:
        self.default_generators: tuple[torch.Generator, ...] = ()
        self._lazy_seed_tracker = torch.cuda._LazySeedTracker()
        self._queued_calls: list = [(_check_hardware, [])]
        self.capturing = False

    def init(self) -> None:
        if self.is_initialized():
            return
        self.default_generators = tuple(torch.Generator() for _ in range(DEVICES))
        for generator in self.default_generators:
            generator.seed()
        self._queued_calls.extend(calls for calls in self._lazy_seed_tracker.get_calls() if calls)
        for call, _ in self._queued_calls:
            call()

    def is_available(self) -> bool:
        return False  # torch.compile would ask torch's C++ side for this device's streams

    def is_initialized(self) -> bool:
        return bool(self.default_generators)

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return DEVICES

    def _lazy_call(self, call, *, seed_all: bool = False, seed: bool = False) -> None:
        if self.is_initialized():
            call()
        elif seed_all:
            self._lazy_seed_tracker.queue_seed_all(call, [])
        elif seed:
            self._lazy_seed_tracker.queue_seed(call, [])
        else:
            self._queued_calls.append((call, []))

    def manual_seed(self, seed: int, device: int = 0) -> None:
        self._lazy_call(lambda: self.default_generators[device].manual_seed(seed), seed=True)

    def manual_seed_all(self, seed: int) -> None:
        def call() -> None:
            for generator in self.default_generators:
                generator.manual_seed(seed)

        self._lazy_call(call, seed_all=True)

    def get_rng_state(self, device: int = 0) -> torch.Tensor:
        self.init()
        return self.default_generators[device].get_state()

    def set_rng_state(self, state: torch.Tensor, device: int = 0) -> None:
        self._lazy_call(lambda: self.default_generators[device].set_state(state))

    def rand(self) -> tuple[float, ...]:
        """Draw on each device. This starts the devices, as a first kernel would."""
        self.init()
        return tuple(torch.rand(1, generator=g).item() for g in self.default_generators)


FAKE = FakeAccelerator()


def register() -> None:
    torch.utils.rename_privateuse1_backend("fake")
    torch._register_device_module("fake", FAKE)
