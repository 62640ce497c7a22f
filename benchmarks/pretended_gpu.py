"""A pretended GPU, to rehearse the measurements of a real GPU.

torch.cuda answers as if there were one GPU, and the work for the GPU stays on the CPU. So the
code for a GPU runs: events, memory statistics, pinned settings, a process for each value of
`cudnn.benchmark`. The figures mean nothing.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from seedscope.costs import session

from .items import Found, Slot

NAME = "PRETENDED, no GPU measured this"

#: The answers of torch.cuda, by the function's name.
_FACTS: dict[str, Any] = {
    "init": None,
    "is_available": True,
    "is_initialized": True,
    "is_bf16_supported": True,
    "is_current_stream_capturing": False,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": NAME,
    "get_device_properties": SimpleNamespace(multi_processor_count=0, total_memory=0, uuid="none"),
    "synchronize": None,
    "empty_cache": None,
    "reset_peak_memory_stats": None,
    "memory_allocated": 0,
    "max_memory_allocated": 10**6,
    "clock_rate": 1980,
    "temperature": 60,
}
_ANSWERS: dict[str, Any] = {}


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1e3


class OnTheCPU(TorchFunctionMode):
    """A mode in which every call that names the GPU gets the CPU instead."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.device:  # only names the device
            return function(*args, **(kwargs or {}))
        args = tuple(_moved(x) for x in args)
        return function(*args, **{name: _moved(x) for name, x in (kwargs or {}).items()})


def _moved(argument: Any) -> Any:
    names_gpu = isinstance(argument, (str, torch.device)) and str(argument) in ("cuda", "cuda:0")
    return "cpu" if names_gpu else argument


def pretend() -> None:
    """Pretend from now on, until the end of the process, that there is a GPU."""
    if torch.cuda.get_device_name is _ANSWERS.get("get_device_name"):
        return
    for name, answer in _FACTS.items():
        _ANSWERS[name] = _answering(getattr(torch.cuda, name), answer)
        setattr(torch.cuda, name, _ANSWERS[name])
    torch.cuda.Event = Event  # type: ignore[misc,assignment]
    if hasattr(torch, "accelerator"):
        # A build with CUDA but no driver has no stream, which optimizers query.
        torch.accelerator.current_stream = lambda *_: SimpleNamespace(is_capturing=bool)  # type: ignore[assignment]
    torch.cuda.default_generators = (torch.Generator(),)
    OnTheCPU().__enter__()
    torch.set_num_threads(1)  # several threads would wait for each other on a busy CPU
    canary = session.canary
    session.canary = lambda is_cuda: canary(False)  # a GPU's canary takes a CPU long


def pretended(measure: Callable[[Slot], Found], slot: Slot) -> Found:
    """Measure as on a GPU; the process must not measure anything else."""
    pretend()
    return measure(slot)


def _answering(real: Any, answer: Any) -> Any:
    takes = inspect.signature(real)

    def answering(*args: Any, **kwargs: Any) -> Any:
        takes.bind(*args, **kwargs)  # raises for arguments that the real function does not take
        return answer

    return answering
