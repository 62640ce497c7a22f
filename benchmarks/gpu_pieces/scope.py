"""The cost of a scope once CUDA runs: entry and exit, a training step, a sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch.utils.data import DataLoader

from ..data_samples import PLAIN, TimedInWorker, draws
from ..harness import Samples, measure, paired, summary
from ..items import Found, Item, Scale, Slot
from ..peers import Body, nothing
from ..scope_arms import BLOCK, FLOOR, FLOOR_AS_SET, make_arms, training_step

GROUP = PROCESS = "scope"
STEP, SAMPLE = "training step", "SeededDataset"
BARE = "neither"


def items(scale: Scale) -> list[Item]:
    return [
        Item(GROUP, "entry and exit", partial(_entry, scale=scale), 4.0, PROCESS),
        Item(GROUP, STEP, partial(_step, scale=scale), 3.0, PROCESS),
        Item(GROUP, SAMPLE, partial(_sample, scale=scale), 6.0, PROCESS),
        Item(GROUP, "CUDA calls", partial(_calls, scale=scale), 5.0, PROCESS),
    ]


def _timed(calls: Mapping[str, Callable[[], object]], scale: Scale) -> dict[str, Samples]:
    rounds, block_s = (5, 0.001) if scale.quick else (100, 0.002)
    return measure(calls, rounds=rounds, block_s=block_s)[0]


def _against(samples: dict[str, Samples], floors: Callable[[str], str]) -> Found:
    """Return microseconds of each arm, and ratios to its floor."""
    return {
        name: {**summary(values), "to_floor": paired(values, samples[floors(name)])}
        for name, values in samples.items()
    }


def _entry(slot: Slot, scale: Scale) -> Found:
    """Measure microseconds of an empty block of each arm, once CUDA has started."""
    torch.cuda.init()
    arms = make_arms(scale.device)
    samples = _timed({name: arm.call for name, arm in arms.items()}, scale)
    return {"us": _against(samples, lambda name: FLOOR if arms[name].has_writes else FLOOR_AS_SET)}


def _step(slot: Slot, scale: Scale) -> Found:
    """Measure microseconds of a small training step: in a scope, in its floor, and in neither."""
    arms, step = make_arms(scale.device), training_step(scale.device)
    calls = {name: partial(arms[name].run, step) for name in (BLOCK, FLOOR)}
    samples = _timed({**calls, BARE: step}, scale)
    return {"us": _against(samples, lambda name: FLOOR)}


def _sample(slot: Slot, scale: Scale) -> Found:
    """Measure microseconds of a sample that costs nothing, with and without `SeededDataset`."""
    torch.cuda.init()
    timed = {"main process": partial(_draws, False, scale), "worker": partial(_draws, True, scale)}
    worker = TimedInWorker(timed["worker"])
    alone = DataLoader(worker, batch_size=None, num_workers=1)
    found = {"main process": timed["main process"](), "worker": next(iter(alone))}
    return {
        "us": {where: _against(samples, lambda name: PLAIN) for where, samples in found.items()}
    }


def _draws(in_worker: bool, scale: Scale) -> dict[str, Samples]:
    return _timed(draws(in_worker), scale)


def cuda_calls(body: Body, is_pretended: bool = False) -> Counter[str]:
    """Return how often each CUDA runtime call and kernel occurs while `body` runs."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    # Without a driver, torch's profiler of CUDA prints thousands of lines.
    activities = [ProfilerActivity.CPU]
    if not is_pretended:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, acc_events=True) as profiler:
        body()
    return Counter(
        event.name
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA or re.match("cu(da)?[A-Z]", event.name)
    )


def busy(calls: Iterable[str]) -> list[str]:
    """Return the calls that launch, copy, allocate or wait, without mere queries."""
    asks = re.compile("cu(da)?(?!.*(Launch|Synchronize|Mem|Malloc|Free))[A-Z]")
    return [name for name in calls if not asks.match(name)]


def calls_of_a_scope(device: str, is_pretended: bool = False) -> dict[str, dict[str, int]]:
    """Return the CUDA calls that the profiler sees in entry and exit, and in a training step."""
    step = training_step(device)
    step()
    # An empty profile has calls too, such as the synchronisation at its end.
    empty = cuda_calls(nothing, is_pretended)
    bodies = {"scope": make_arms(device)[BLOCK].call, STEP: step}
    return {name: dict(cuda_calls(body, is_pretended) - empty) for name, body in bodies.items()}


def call_sentences(found: Found) -> list[str]:
    """Return a sentence on a scope's CUDA calls; a step's count proves that the profiler sees."""
    calls = found.get("CUDA calls", {}).get("calls", {})
    if not calls:
        return []
    of_scope = ", ".join(busy(calls["scope"])) or "nothing"
    count = sum(calls[STEP][name] for name in busy(calls[STEP]))
    text = f"by the profiler a scope launches, copies, allocates or waits for: {of_scope}"
    return [f"{text} ({count} calls and kernels in a training step)"]


def _calls(slot: Slot, scale: Scale) -> Found:
    return {"calls": calls_of_a_scope(scale.device, is_pretended=scale.small)}
