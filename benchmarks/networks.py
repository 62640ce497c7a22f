"""Measures networks under the determinism settings: the items of `determinism_cost` and `gpu`.

One process for each value of `cudnn.benchmark`, in A B B A order: cuDNN keeps the plans that
it has chosen for the life of a process.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch

from seedscope import seeded
from seedscope.costs import ARMS, DEFAULT, SEED, Arm, Effort, arms_of, run_session

from .items import Found, Item, Scale, Slot
from .models import LARGE, Case, Network, origin

#: The processes, each with its value of `cudnn.benchmark`: A B B A, against a slow drift.
PROCESSES = {
    "benchmark off": False,
    "benchmark on": True,
    "benchmark on, again": True,
    "benchmark off, again": False,
}
FIRST_PAIR, SECOND_PAIR = [*PROCESSES][:2], [*PROCESSES][2:]
#: The groups of items that are no settings' sessions.
ATTENTION, SIZES = "attention of a network", "new input sizes"

_FULL = Effort(rounds=12, block_s=0.15, steps=3)
_QUICK = Effort(rounds=3, block_s=0.01, steps=3)
_TIMING_S = 0.4  # the seconds that timing a setting needs; more of them make it more precise
_BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
_SIZES = 8  # new heights and widths of the input


def network_item(case: Case, process: str, scale: Scale) -> Item:
    """Return the item that measures `case` in one of the `PROCESSES`."""
    benchmark = PROCESSES[process]
    arms = arms_of(ARMS, benchmark, scale.is_cuda)
    measure = partial(run_case, case=case, arms=arms, scale=scale)
    # Planned for an H100, not measured: autotuning takes seconds, where there are convolutions.
    seconds = (12.0 if case.has_sizes else 4.0) if benchmark else 6.0
    seconds *= {"train": 1, "eval": 0.5}[case.mode] * (6 if case == LARGE else 1)
    return Item(process, case.name, measure, seconds, process, is_elastic=True)


def attention_item(case: Case, scale: Scale) -> Item:
    """Return the item that measures `case` through each backend of attention."""
    arms = [DEFAULT] + [
        Arm(f"{backend}{', deterministic=True' * strict}", strict, backend=backend)
        for backend in _BACKENDS
        for strict in (False, True)
    ]
    measure = partial(run_case, case=case, arms=arms, scale=scale)
    return Item(ATTENTION, case.name, measure, 8.0, "benchmark off", is_elastic=True)


def sizes_items(cases: Iterable[Case], scale: Scale) -> list[Item]:
    """Return the items that measure what a new size of the input costs."""
    items = []
    for case in cases:
        for process in FIRST_PAIR:
            arm = Arm(process, benchmark=PROCESSES[process])
            measure = partial(_new_sizes, case=case, arm=arm, scale=scale)
            # Autotuning takes seconds for each size.
            seconds = 30.0 if arm.benchmark else 8.0
            items.append(Item(SIZES, f"{case.name}, {process}", measure, seconds, process))
    return items


def run_case(slot: Slot, case: Case, arms: list[Arm], scale: Scale) -> Found:
    """Measure one network in this process: repeats, then times, for as long as there is time."""
    timing_begins = time.monotonic()

    def keep(session: Found) -> None:
        nonlocal timing_begins
        timing_begins = time.monotonic()
        slot.keep(session)

    try:
        with seeded(SEED, deterministic=False):  # puts the precision back
            if case.precision == "tf32":
                torch.set_float32_matmul_precision("high")
            network = Network(case, scale)
            effort = replace(_QUICK if scale.quick else _FULL, until=slot.until)
            found = run_session(network.restart, arms, effort, keep)
            for arm in found["arms"]:
                if arm["peak_mb"]:
                    arm["peak_mb"] -= network.kept_mb
    finally:
        network = None  # type: ignore[assignment]
        _free(scale)
    spare_s = max(0.0, time.monotonic() - timing_begins - _TIMING_S * len(arms))
    return found | {"origin": origin(case.model, scale.small), "spare_s": spare_s}


def _new_sizes(slot: Slot, case: Case, arm: Arm, scale: Scale) -> Found:
    """Milliseconds of a step at each of eight new input sizes, the first time and the third."""
    times: list[list[float]] = []
    start = 40 if scale.small else 160
    try:
        with arm.open():
            for number in range(_SIZES):
                step = Network(case, scale, start + 16 * number).restart()
                times.append([_step_ms(step, scale) for _ in range(3)])
                slot.keep({"ms": times})
    finally:
        step = None  # type: ignore[assignment]
        _free(scale)
    return {"benchmark": arm.benchmark, "model": case.name, "ms": times}


def _step_ms(step: Callable[[], object], scale: Scale) -> float:
    begin = time.perf_counter()
    step()
    if scale.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3


def _free(scale: Scale) -> None:
    """Give back what a network has taken, so that the next one finds the memory free."""
    gc.collect()
    if scale.is_cuda:
        torch.cuda.empty_cache()
