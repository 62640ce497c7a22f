"""`python tests/pretended_gpu.py SUITE ...`: a benchmark suite on a GPU that is pretended.

torch.cuda answers as if there were one GPU, and what would go to it stays on the CPU, at the
CPU's sizes. So the suites take the ways that they take on a GPU: events, memory statistics,
pinned settings, a process for each value of `cudnn.benchmark`. No figure of it means anything.
"""

from __future__ import annotations

import inspect
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import models, operations
from benchmarks.__main__ import main
from seedscope import costs

NAME = "PRETENDED, no GPU measured this"


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1e3


class OnTheCPU(TorchFunctionMode):
    """Every call that names the GPU gets the CPU in its place."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.device:  # only a name
            return function(*args, **(kwargs or {}))
        args = tuple(_moved(x) for x in args)
        return function(*args, **{name: _moved(x) for name, x in (kwargs or {}).items()})


def _moved(argument: Any) -> Any:
    names_gpu = isinstance(argument, (str, torch.device)) and str(argument) in ("cuda", "cuda:0")
    return "cpu" if names_gpu else argument


def pretend() -> None:
    answers = {
        "init": None,
        "is_available": True,
        "is_initialized": True,
        "is_bf16_supported": True,
        "is_current_stream_capturing": False,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": NAME,
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 10**6,
        "clock_rate": 1980,
        "temperature": 60,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, _answering(getattr(torch.cuda, name), answer))
    torch.cuda.Event = Event  # type: ignore[misc,assignment]
    torch.cuda.default_generators = (torch.Generator(),)
    OnTheCPU().__enter__()
    # A CPU needs hours for what a GPU is given.
    build, take = models.build, models._input
    models.build = lambda model, small: build(model, True)
    models._input = lambda model, small, size: take(model, True, size and size // 4)
    begin = operations.Inputs.__init__
    operations.Inputs.__init__ = lambda self, device: begin(self, "cpu")
    canary = costs._canary
    costs._canary = lambda is_cuda: canary(False)


def _answering(real: Any, answer: Any) -> Any:
    takes = inspect.signature(real)

    def answering(*args: Any, **kwargs: Any) -> Any:
        takes.bind(*args, **kwargs)  # as the real one refuses what it does not take
        return answer

    return answering


pretend()  # also in the processes that a suite starts: they import this module

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
