"""Measures networks under the determinism settings: the items of `determinism_cost` and `gpu`.

Each value of `cudnn.benchmark` has its own processes, in A B B A order: cuDNN keeps the plans
that it has chosen for the life of a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial

import torch
import torch.nn.functional as F

from seedscope import seeded
from seedscope.costs.configurations import (
    CONFIGURATIONS,
    DEFAULT,
    SEED,
    Configuration,
    Effort,
    configurations_of,
)
from seedscope.costs.session import Session, run_session

from .items import Found, Item, Scale, Slot
from .models import Case, Network, origin

#: The processes with their values of `cudnn.benchmark`: A B B A, against a slow drift.
PROCESSES = {
    "benchmark off": False,
    "benchmark on": True,
    "benchmark on, again": True,
    "benchmark off, again": False,
}
FIRST_PAIR, SECOND_PAIR = [*PROCESSES][:2], [*PROCESSES][2:]
#: The groups whose items are not sessions of the determinism settings.
ATTENTION, SIZES = "attention of a network", "new input sizes"

_FULL = Effort(rounds=12, block_s=0.15, steps=3)
_QUICK = Effort(rounds=3, block_s=0.01, steps=3)
_TIMING_S = 0.6  # the seconds needed to time a setting; more seconds give more precision
#: The seconds of a network on an H200 with `cudnn.benchmark` off and on. cuDNN compiles
#: kernels for some networks, and more kernels when it tunes.
_USUAL_S = (9.0, 8.0)
_SECONDS = {
    "ResNet-50": (14.0, 26.0),
    "GPT-2 small": (16.0, 8.0),
    "ConvNeXt-T": (17.0, 20.0),
    "EfficientNet-B0": (32.0, 75.0),  # with benchmark on, it was cut off after 43 s
    "Llama 1B": (36.0, 36.0),
}
_BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
_SIZES = 8  # new heights and widths of the input


def network_item(case: Case, process: str, scale: Scale) -> Item:
    """Return the item that measures `case` in one of the `PROCESSES`."""
    benchmark = PROCESSES[process]
    configurations = configurations_of(CONFIGURATIONS, benchmark, scale.is_cuda)
    measure = partial(run_case, case=case, configurations=configurations, scale=scale)
    seconds = _SECONDS.get(case.model, _USUAL_S)[benchmark] * {"train": 1, "eval": 0.5}[case.mode]
    return Item(process, case.name, measure, seconds, process, is_elastic=True)


def attention_item(case: Case, scale: Scale) -> Item:
    """Return the item that measures `case` through each backend of attention."""
    configurations = [DEFAULT] + [
        Configuration(
            f"{backend}{', deterministic=True' if strict else ''}", strict, backend=backend
        )
        for backend in _BACKENDS
        for strict in (False, True)
    ]
    measure = partial(run_case, case=case, configurations=configurations, scale=scale)
    return Item(ATTENTION, case.name, measure, 8.0, "benchmark off", is_elastic=True)


def sizes_items(cases: Iterable[Case], scale: Scale) -> list[Item]:
    """Return the items that measure the cost of a new input size."""
    items = []
    for case in cases:
        for process in FIRST_PAIR:
            configuration = Configuration(process, benchmark=PROCESSES[process])
            measure = partial(_new_sizes, case=case, configuration=configuration, scale=scale)
            # Autotuning takes seconds for each size.
            seconds = 30.0 if configuration.benchmark else 8.0
            items.append(Item(SIZES, f"{case.name}, {process}", measure, seconds, process))
    return items


def run_case(slot: Slot, case: Case, configurations: list[Configuration], scale: Scale) -> Found:
    """Measure one network in this process: first repeats, then times until the slot ends."""
    timing_begins = time.monotonic()

    def keep(session: Session) -> None:
        nonlocal timing_begins
        timing_begins = time.monotonic()
        for measurement in session.measurements:
            if measurement.peak_mb:
                measurement.peak_mb -= network.kept_mb  # only this benchmark keeps that copy
        slot.keep(session.as_dict())

    _start_libraries(scale)
    with seeded(SEED, deterministic=False):  # restores the precision
        if case.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        network = Network(case, scale)
        effort = replace(_QUICK if scale.quick else _FULL, until=slot.until)
        found = run_session(network.restart, configurations, effort, keep)
    spare_s = max(0.0, time.monotonic() - timing_begins - _TIMING_S * len(configurations))
    facts = {"origin": origin(case.model, scale.small), "input": network.input_shape}
    return found.as_dict() | facts | {"spare_s": spare_s}


@cache
def _start_libraries(scale: Scale) -> None:
    """Load cuDNN and cuBLAS, so that the first network's first step does not pay for that."""
    weight = torch.ones(8, 8, 3, 3, device=scale.device, dtype=torch.bfloat16)
    x = F.conv2d(weight.new_ones(1, 8, 16, 16), weight).flatten(1)
    F.linear(x, weight.new_ones(8, x.shape[1]))


def _new_sizes(slot: Slot, case: Case, configuration: Configuration, scale: Scale) -> Found:
    """Measure the milliseconds of the first three steps at each of eight new input sizes."""
    times: list[list[float]] = []
    # No size equals a training size: 32, 224 or 256. A larger size comes first, so that
    # torch already holds the memory.
    sizes = range(40, 40 + 16 * _SIZES, 16) if scale.small else range(168, 168 + 16 * _SIZES, 16)
    with configuration.open():
        network = Network(case, scale, sizes[-1] + 8)
        step = network.restart()
        step()
        for size in sizes:
            step = network.at_size(size)
            times.append([_step_ms(step, scale) for _ in range(3)])
            slot.keep({"ms": times})
    return {"benchmark": configuration.benchmark, "model": case.name, "ms": times}


def _step_ms(step: Callable[[], object], scale: Scale) -> float:
    if scale.is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    if scale.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3
