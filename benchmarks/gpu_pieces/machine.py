"""The card, two canaries of its speed, and whether cuDNN's plans depend on `benchmark`."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

import torch

from seedscope.costs.timing import timed

from ..items import Found, Item, Scale, Slot

GROUP, PROCESS = "machine", "operations"
PLANS = "cuDNN's plans"

_QUERY = (
    "name",
    "driver_version",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "temperature.gpu",
)


def items(scale: Scale) -> list[Item]:
    return [
        Item(GROUP, "card", partial(_card, scale=scale), 1.0, PROCESS),
        Item(GROUP, "canaries", partial(_canaries, scale=scale), 3.0, PROCESS),
        Item(GROUP, PLANS, partial(_plans, scale=scale), 8.0, PROCESS),
    ]


def nvidia_smi() -> dict[str, str]:
    """Return the driver's facts about the first card; {} if the driver cannot be queried."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    line = done.stdout.partition("\n")[0]
    return dict(zip(_QUERY, line.split(", "), strict=False)) if done.returncode == 0 else {}


def _card(slot: Slot, scale: Scale) -> Found:
    properties: Any = torch.cuda.get_device_properties()
    return {
        "driver": nvidia_smi(),
        "multiprocessors": properties.multi_processor_count,
        "memory_gb": properties.total_memory / 1e9,
    }


def _canaries(slot: Slot, scale: Scale) -> Found:
    """Return the bandwidth of a copy, reads and writes counted, and the rate of a bf16 product."""
    size, side = (2**20, 256) if scale.small else (2**30, 8192)
    source = torch.empty(size, dtype=torch.uint8, device=scale.device)
    target = torch.empty_like(source)
    matrix = torch.randn(side, side, device=scale.device, dtype=torch.bfloat16)
    copy_ms = _median_ms(partial(target.copy_, source))
    product_ms = _median_ms(partial(torch.mm, matrix, matrix))
    return {
        "copy_gb_s": 2 * size / copy_ms / 1e6,
        "bf16_product_tflop_s": 2 * side**3 / product_ms / 1e9,
    }


def _median_ms(call: Any) -> float:
    times = []
    for _ in range(6):
        reading = timed(call, 10, is_cuda=True)
        torch.cuda.synchronize()
        times.append(reading())
    return median(times[1:])  # the first round warms up


# ------------------------------------------------------------------ cuDNN's plans

#: The values of `benchmark` for successive calls with a new shape; the time of the last call
#: counts.
_ORDERS = {
    "new shape, benchmark off": (False,),
    "new shape, benchmark on": (True,),
    "on, after it was used with off": (False, True),
    "off, after it was used with on": (True, False),
    "a known shape": (False, False),
}


def _plans(slot: Slot, scale: Scale) -> Found:
    """Return the milliseconds of a call of a convolution, after calls under other settings.

    A call is fast if a plan was kept, and slow if a plan is chosen: by autotuning with
    `benchmark` on, by cuDNN's own rules with `benchmark` off. Each time is the median of
    several shapes that are new to the process.
    """
    channels, sizes = (4, iter(range(8, 99))) if scale.small else (64, iter(range(28, 999, 2)))
    weight = torch.randn(channels, channels, 3, 3, device=scale.device)
    # torch keeps this block and cuts from it, so that no call waits for memory.
    torch.empty(2**20 if scale.small else 2**31, dtype=torch.uint8, device=scale.device)
    try:
        return {"ms": _plan_times(weight, sizes, scale)}
    finally:
        torch.backends.cudnn.benchmark = False


def _plan_times(weight: torch.Tensor, sizes: Iterator[int], scale: Scale) -> Found:
    channels, found = len(weight), Found()
    for name, order in ({"": (False, True)} | _ORDERS).items():  # the first order starts cuDNN
        times = []
        for _ in range(3 if scale.quick else 5):
            side = next(sizes)
            x = torch.randn(16, channels, side, side, device=scale.device)
            for benchmark in order:
                torch.backends.cudnn.benchmark = benchmark
                ms = _call_ms(x, weight)
            times.append(ms)
        found[name] = {"median": median(times), "min": min(times), "max": max(times)}
    del found[""]
    return found


def _call_ms(x: torch.Tensor, weight: torch.Tensor) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    torch.nn.functional.conv2d(x, weight, padding=1)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3


def plan_verdicts(report: Found) -> list[str]:
    """Return sentences on whether plans are kept when `benchmark` changes, and the times."""
    found = report["found"].get(GROUP, {}).get(PLANS, {})
    if "ms" not in found:
        return [f"{PLANS}: {found['failed']}"] if "failed" in found else []
    ms = {name: times["median"] for name, times in found["ms"].items()}
    new_off, new_on, off_on, on_off, known = (ms[name] for name in _ORDERS)
    figures = "; ".join(f"{name}: {value:.2f} ms" for name, value in ms.items())
    return [
        f"{PLANS} of shapes used with benchmark off, once it is on: {_kept(off_on, new_on, known)}",
        f"{PLANS} of shapes used with benchmark on, once it is off: "
        f"{_kept(on_off, new_off, known)}",
        f"a call's time: {figures}",
    ]


def _kept(ms: float, chosen_ms: float, known_ms: float) -> str:
    """Return which of the two times `ms` is nearer to by ratio, if the two can be told apart."""
    if chosen_ms < 2 * known_ms:
        return "the times do not tell"
    return "kept" if ms**2 < chosen_ms * known_ms else "chosen anew"
