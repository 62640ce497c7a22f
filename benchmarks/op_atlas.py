"""Which operations do not repeat, under each setting, and what three lists say of them.

Each operation runs 30 times on the same inputs under torch's defaults, under "warn" and
under True, and its results are compared bit for bit. The lists: the documentation of
`torch.use_deterministic_algorithms` in the torch that runs, the call sites of its alert
in the compiled library, and the tolerances of torch's own operator tests; the last two
are in nondeterminism_lists.json.
"""

from __future__ import annotations

import gc
import json
import random
import re
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seedscope import seeded
from seedscope.costs import first_line, timed

from .harness import environment, parse, save, show, suite_parser, summary
from .operations import OPERATIONS, Inputs, Operation
from .resumable import Found, measure_all

SEED = 1029
MODES: dict[str, Any] = {"default": False, "warn": "warn", "True": True}
LISTS = json.loads((Path(__file__).parent / "nondeterminism_lists.json").read_text())


def documented() -> dict[str, set[str]]:
    """What the documentation of this torch says that strict settings do, and to what."""
    text = torch.use_deterministic_algorithms.__doc__ or ""
    _, _, text = text.partition("will act")
    switches, _, text = text.partition("will throw a")
    raises, _, text = text.partition("In addition, several operations")
    fills, _, _ = text.partition("Note that")
    pattern = re.compile(r":(?:class|func|meth|attr):`~?torch\.([\w.]+)`")
    sections = {"switches": switches, "raises": raises, "fills": fills}
    return {name: set(pattern.findall(section)) for name, section in sections.items()}


def listed(operation: Operation, documentation: dict[str, set[str]], device: str) -> dict[str, Any]:
    entries = set(operation.entries)
    alerts = set(LISTS["alerts"]["cuda" if device == "cuda" else "cpu"])
    tests = {*LISTS["opinfo"]["functions"], *LISTS["opinfo"]["modules"]}
    return {
        "documented": [name for name, names in documentation.items() if entries & names],
        "alert": sorted(entries & alerts),
        "operator_tests": sorted(entries & tests),
    }


def measure_operation(operation: Operation, device: str, runs: int) -> dict[str, Any]:
    """Return, for each mode, the distinct results or the error, and times."""
    found: dict[str, Any] = {}
    with seeded(SEED, deterministic=False):
        call = operation.make(Inputs(device))
    for mode, deterministic in MODES.items():
        with (
            seeded(SEED, deterministic=deterministic),
            warnings.catch_warnings(record=True) as told,
        ):
            warnings.simplefilter("always")
            try:
                distinct = _distinct(call, runs)
            except Exception as error:
                found[mode] = {"error": first_line(error)}
                continue
            lines = [first_line(warning.message) for warning in told]
            warned = [line for line in dict.fromkeys(lines) if "determinis" in line]
            found[mode] = {"distinct": distinct, "warned": warned}
    _time(call, found, device, 5 if runs < 30 else 15)
    return found


def _distinct(call: Callable[[], Any], runs: int) -> int:
    """How many different results there were, compared where they are."""
    seen: list[list[torch.Tensor]] = []
    for _ in range(runs):
        result = [x.detach().clone() for x in _tensors(call())]
        if not any(all(map(_same_bits, result, other)) for other in seen):
            seen.append(result)
    return len(seen)


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    flat = (x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b))
    return torch.equal(next(flat), next(flat))


def _time(call: Callable[[], Any], found: dict[str, Any], device: str, rounds: int) -> None:
    """Time the modes that run, in turns, and set each beside the default."""
    is_cuda = device == "cuda"
    running = [mode for mode in MODES if "error" not in found[mode]]
    samples: dict[str, list[float]] = {mode: [] for mode in running}
    launches: dict[str, list[float]] = {mode: [] for mode in running}
    order = random.Random(SEED)
    for number in range(rounds + 1):
        readings = {}
        for mode in order.sample(running, len(running)):
            with seeded(SEED, deterministic=MODES[mode]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call()
                begin = time.perf_counter()
                readings[mode] = timed(call, 3, is_cuda)
                launch_ms = (time.perf_counter() - begin) / 3 * 1e3
            if number:  # the first warms up
                launches[mode].append(launch_ms)
        if is_cuda:
            torch.cuda.synchronize()
        for mode, reading in readings.items():
            if number:
                samples[mode].append(reading())
    for mode in running:
        found[mode]["ms"] = summary(samples[mode])
        if is_cuda:
            found[mode]["launch_ms"] = summary(launches[mode])
        if "default" in running:
            pairs = zip(samples[mode], samples["default"], strict=True)
            found[mode]["to_default"] = summary(a / b for a, b in pairs)


def measure(device: str, name: str, runs: int) -> Found:
    """Measure one operation, by name."""
    gc.collect()
    operation = next(operation for operation in OPERATIONS if operation.name == name)
    return measure_operation(operation, device, runs)


def collect(device: str, quick: bool, folder: Path, only: str) -> dict[str, Any]:
    """Return everything that this suite measures, ready for JSON."""
    runs = 5 if quick else 30
    facts = environment(device) | {"quick": quick, "runs": runs}
    operations = [operation for operation in OPERATIONS if only in operation.name]
    done, part = measure_all(
        f"op_atlas_{device}",
        folder,
        {name: facts[name] for name in ("device", "versions", "runs")},
        {device: [operation.name for operation in operations]},
        partial(measure, runs=runs),
    )
    documentation = documented()
    return facts | {
        "part": str(part),
        "operations": {
            operation.name: listed(operation, documentation, device)
            | {"modes": done[device, operation.name]}
            for operation in operations
        },
    }


def verdict(mode: dict[str, Any] | None) -> str:
    if mode is None:
        return ""
    return "raises" if "error" in mode else str(mode["distinct"])


def rows(report: dict[str, Any]) -> list[list[str]]:
    """A row for each operation: results in each mode, time, and what the lists say."""
    table = []
    for operation, found in report["operations"].items():
        modes = found["modes"]
        if "failed" in modes:
            continue
        ratio = modes["True"].get("to_default")
        cost = "" if ratio is None else f"{ratio['median']:.2f}x"
        says = ["yes" * bool(found[name]) for name in ("alert", "operator_tests")]
        table.append(
            [
                operation,
                *(verdict(modes[mode]) for mode in MODES),
                cost + ", launch" * any(map(_waits_for_launch, modes.values())),
                ", ".join(found["documented"]),
                *says,
            ]
        )
    return table


def _waits_for_launch(mode: dict[str, Any]) -> bool:
    """Whether a GPU takes no longer than the CPU takes to ask for the work."""
    return "launch_ms" in mode and mode["launch_ms"]["median"] > 0.9 * mode["ms"]["median"]


HEADERS = ["operation", "default", "warn", "True", "True costs", "documented", "alert", "tests"]


def disagreements(report: dict[str, Any]) -> list[str]:
    """Sentences about where documentation and measurement do not say the same."""
    found = []
    for name, operation in report["operations"].items():
        modes = operation["modes"]
        if "failed" in modes or "error" in modes["default"]:
            continue
        strict, plain = modes["True"], modes["default"]
        says = operation["documented"]
        if "error" in strict and "raises" not in says:
            found.append(f"{name}: raises under True, and is not documented to")
        # Of some functions one mode raises and another does not: both are said.
        raises = "raises" in says and "switches" not in says
        if raises and "error" not in strict and report["device"] != "cpu":
            found.append(f"{name}: documented to raise under True, and runs")
        if strict.get("distinct", 1) > 1:
            found.append(f"{name}: {strict['distinct']} results under True")
        if plain["distinct"] > 1 and not operation["documented"]:
            found.append(f"{name}: {plain['distinct']} results by default, and is not documented")
    return found


def failures(report: dict[str, Any]) -> list[str]:
    """Sentences about operations that this device or library does not have."""
    operations = report["operations"].items()
    return [f"{name}: {x['modes']['failed']}" for name, x in operations if "failed" in x["modes"]]


def show_report(report: dict[str, Any]) -> None:
    runs, device = report["runs"], report["device"]
    small = ", small sizes" * (device == "cpu")
    show(f"op_atlas on {device}{small}, distinct results of {runs} runs", HEADERS, rows(report))
    found = disagreements(report) or ["nowhere"]
    show("where documentation and measurement disagree", [""], [[x] for x in found])
    if failed := failures(report):
        show("could not be measured here", [""], [[x] for x in failed])


def main(arguments: list[str]) -> int:
    parser = suite_parser("op_atlas", __doc__, "cpu", "cuda")
    parser.add_argument("--only", default="", help="operations whose name contains this")
    options = parse(parser, arguments)
    if not any(options.only in operation.name for operation in OPERATIONS):
        parser.error(f"--only {options.only}: no operation's name contains this")
    report = collect(options.device, options.quick, options.out, options.only)
    file = save(f"op_atlas_{options.device}", report, options.out)
    show_report(report)
    print(f"\nwritten: {file}")
    return 0
