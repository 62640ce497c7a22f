"""An operation under several settings: distinct results, times, and the peak of memory."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from seedscope import seeded
from seedscope.costs.measurement import first_line
from seedscope.costs.timing import timed

from .harness import summary
from .items import Found

SEED = 1029
_PATIENCE_S = 1.0


class Way(NamedTuple):
    """A way to run an operation: its call, and the settings around it as options of `seeded`."""

    call: Callable[[], Any]
    settings: Mapping[str, Any]


def repeat(way: Way, runs: int, is_cuda: bool) -> Found:
    """Return the number of distinct results, the warnings, and the peak of memory; or the error.

    If seedscope has replaced operations, "replaced" holds the number of calls of each.
    """
    found: Found = {}
    with seeded(SEED, **way.settings) as scope, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            way.call()  # the first call also allocates workspaces, which the libraries keep
            found["peak_mb"] = peak_mb(way.call) if is_cuda else None
            found["distinct"] = _distinct(way.call, runs)
        except Exception as error:
            notes = getattr(error, "__notes__", [])
            return {"error": first_line(error), **({"note": notes[0]} if notes else {})}
        if scope.replaced:
            found["replaced"] = dict(scope.replaced)
    lines = [first_line(warning.message) for warning in told]
    found["warned"] = [line for line in dict.fromkeys(lines) if "determinis" in line]
    return found


def peak_mb(call: Callable[[], Any]) -> float:
    """Return the peak of memory of a call, without its inputs."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _distinct(call: Callable[[], Any], runs: int) -> int:
    """Return the number of distinct results; compare them on their device."""
    seen: list[list[torch.Tensor]] = []
    for _ in range(runs):
        result = [x.detach().clone() for x in _tensors(call())]
        if not any(all(map(same_bits, result, other)) for other in seen):
            seen.append(result)
    return len(seen)


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    flat = (x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b))
    return torch.equal(next(flat), next(flat))


def take_turns(
    ways: Mapping[str, Way],
    found: Mapping[str, Found],
    base: str,
    is_cuda: bool,
    rounds: int,
) -> None:
    """Time the ways in turns; note the times in `found`, and their ratios to the way `base`."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    launches: dict[str, list[float]] = {name: [] for name in ways}
    order = random.Random(SEED)
    begun = time.monotonic()
    for number in range(rounds + 1):
        if number > 5 and time.monotonic() - begun > _PATIENCE_S:
            break  # a slow operation needs fewer rounds
        in_turn = order.sample([*ways], len(ways))
        readings = {name: _start(ways[name], is_cuda) for name in in_turn}
        if is_cuda:
            torch.cuda.synchronize()
        for name, (launch_ms, reading) in readings.items() if number else ():  # the first warms up
            launches[name].append(launch_ms)
            samples[name].append(reading())
    for name in ways:
        found[name]["ms"] = summary(samples[name])
        if is_cuda:
            found[name]["launch_ms"] = summary(launches[name])
        if base in ways:
            pairs = zip(samples[name], samples[base], strict=True)
            found[name][f"to_{base}"] = summary(a / b for a, b in pairs)


def _start(way: Way, is_cuda: bool) -> tuple[float, Callable[[], float]]:
    """Run a call three times; return milliseconds of its launch, and a function for its time."""
    with seeded(SEED, **way.settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        way.call()
        begin = time.perf_counter()
        reading = timed(way.call, 3, is_cuda)
        return (time.perf_counter() - begin) / 3 * 1e3, reading


def waits_for_launch(found: Found) -> bool:
    """Return whether the CPU's launch, not the GPU's work, limits the time."""
    return "launch_ms" in found and found["launch_ms"]["median"] > 0.9 * found["ms"]["median"]
