"""The parts that every suite needs: timing, the machine's description, options, table, JSON."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seedscope.support.conditions import cpu_name, versions
from seedscope.support.tables import aligned

RESULTS = Path(__file__).parent / "results"
LOOKS = "looks"

#: Microseconds of each block of calls, in the order of the rounds.
Samples = list[float]


def measure(
    arms: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    block_s: float,
    depths: Sequence[int] = (0,),
) -> dict[int, dict[str, Samples]]:
    """Return microseconds per call: for each depth and arm, one sample for each round.

    A round takes one sample of every arm at every depth, in a new random order, so that
    a slow spell of the machine affects all arms and `paired` can cancel it. A sample is
    a block of calls that takes about `block_s` seconds.
    """
    cases = [(depth, name) for depth in depths for name in arms]
    calls = {case: _calls_for(block_s, case[0], arms[case[1]]) for case in cases}
    samples: dict[int, dict[str, Samples]] = {d: {name: [] for name in arms} for d in depths}
    # The order has its own generator, because the arms reseed the global generator.
    order = random.Random(1029)
    told = time.monotonic()
    gc.collect()
    gc.disable()  # as timeit does: a collection would fall into a block by chance
    try:
        for number in range(rounds):
            for depth, name in order.sample(cases, len(cases)):
                block = partial(_microseconds, arms[name], calls[depth, name])
                samples[depth][name].append(at_depth(depth, block))
            if time.monotonic() - told > 2:
                told = time.monotonic()
                progress(f"round {number + 1} of {rounds}")
    finally:
        gc.enable()
    return samples


def at_depth(depth: int, function: Callable[[], Any]) -> Any:
    """Return `function()`, called with `depth` frames below it, or more if more are open."""
    return function() if frames() >= depth else at_depth(depth, function)


def frames() -> int:
    """Return the number of frames on the caller's stack, the caller's included."""
    frame, count = sys._getframe(1), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1  # type: ignore[assignment]
    return count


def _calls_for(block_s: float, depth: int, call: Callable[[], object]) -> int:
    at_depth(depth, partial(_microseconds, call, 3))  # warms caches
    quickest = min(at_depth(depth, partial(_microseconds, call, 3)) for _ in range(3))
    return max(1, round(block_s * 1e6 / max(quickest, 0.01)))


def _microseconds(call: Callable[[], object], calls: int) -> float:
    begin = time.perf_counter_ns()
    for _ in repeat(None, calls):
        call()
    return (time.perf_counter_ns() - begin) / calls / 1e3


def summary(values: Iterable[float]) -> dict[str, float]:
    """Return median, quartiles, minimum and number of `values`."""
    ordered = sorted(values)
    q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3, "min": ordered[0], "n": len(ordered)}


def paired(over: Samples, under: Samples) -> dict[str, float]:
    """Return the summary of the ratios of two arms, taken round by round."""
    return summary(a / b for a, b in zip(over, under, strict=True))


def spread(of: Mapping[str, float], digits: int = 3) -> str:
    """Return median and quartiles."""
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(of["median"], of["q1"], of["q3"], d=digits)


def progress(text: str) -> None:
    print(f"  ... {text}", file=sys.stderr, flush=True)


def suite_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a suite's options."""
    parser = argparse.ArgumentParser(f"python -m benchmarks {name}", description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure")
    what = (
        f"folder of the JSON file, default: benchmarks/{RESULTS.name}, or of a look {LOOKS} in it"
    )
    parser.add_argument("--out", type=Path, help=what)
    return parser


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Return the options, with the folder of the results."""
    options = parser.parse_args(arguments)
    if options.out is None:
        # Part of a suite, or a quick run, must not replace the published figures.
        is_look = options.quick or getattr(options, "only", "")
        options.out = RESULTS / LOOKS if is_look else RESULTS
    return options


def environment(device: str) -> dict[str, Any]:
    """Return the conditions of a figure: date (UTC), device, versions and threads."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {
            "Python": platform.python_version(),
            "NumPy": np.__version__,
            "torch": torch.__version__,
            "OS": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]),
            **{
                name: text
                for name, text in versions().items()
                if name in ("cuda", "cudnn") and text
            },
            "CPU": f"{cpu_name()}, {os.cpu_count()} cores",
        },
        "threads": torch.get_num_threads(),
    }


def show(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in plain text, which can be pasted."""
    print("\n".join([f"\n{title}", *aligned([headers, *rows])]))


def save(name: str, report: dict[str, Any], folder: Path) -> Path:
    """Write `report` as JSON into `folder`; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(report, indent=1) + "\n")
    return file
