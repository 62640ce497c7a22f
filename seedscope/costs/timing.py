"""The time of a step, on the CPU and on a GPU."""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def steps_for(step: Callable[[], Any], block_s: float, is_cuda: bool) -> int:
    """Return the number of steps that fill a block, after two steps to warm up."""
    for _ in range(2):
        step()
    if is_cuda:
        torch.cuda.synchronize()
    reading = timed(step, 2, is_cuda)
    if is_cuda:
        torch.cuda.synchronize()
    return max(1, min(1000, round(block_s * 1e3 / max(reading(), 1e-3))))


def launch_ms(step: Callable[[], Any]) -> float:
    """Return the milliseconds of the CPU to launch one step, without the GPU's work.

    The GPU must be idle: with a full queue the CPU would wait.
    """
    torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    passed = time.perf_counter() - begin
    torch.cuda.synchronize()
    return passed * 1e3


def timed(call: Callable[[], Any], count: int, is_cuda: bool) -> Callable[[], float]:
    """Run `call` `count` times; return a function that returns the milliseconds of one call.

    Call that function after the device has finished.
    """
    if is_cuda:
        events: Any = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        events[0].record()
        for _ in range(count):
            call()
        events[1].record()
        return lambda: float(events[0].elapsed_time(events[1])) / count
    begin = time.perf_counter()
    for _ in range(count):
        call()
    milliseconds = (time.perf_counter() - begin) / count * 1e3
    return lambda: milliseconds


def canary(is_cuda: bool) -> Callable[[], Any]:
    """Return a function that computes a fixed product, whose time changes only with the clocks."""
    size, device = (4096, "cuda") if is_cuda else (256, "cpu")
    # bfloat16 on a GPU, since the step's settings choose TF32 for float32.
    kind = torch.bfloat16 if is_cuda else torch.float32
    matrix = torch.full((size, size), 0.5, device=device, dtype=kind)
    return lambda: torch.mm(matrix, matrix)


@contextmanager
def silenced() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage before the block and not inside, where a collection would come by chance."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def note_state(state: dict[str, float]) -> None:
    """Note the GPU's clock, temperature, power, use and throttle reasons, if NVML has them."""
    for name in ("clock_rate", "temperature", "power_draw", "utilization"):
        with contextlib.suppress(Exception):  # values that NVML lacks are left out
            state[name] = float(getattr(torch.cuda, name)())
    with contextlib.suppress(Exception):
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        properties = torch.cuda.get_device_properties()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        # One bit for each reason: https://docs.nvidia.com/deploy/nvml-api
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        state["throttle_reasons"] = int(state.get("throttle_reasons", 0)) | reasons
