"""Which operations do not repeat under each setting, and what three lists say of them.

Each operation runs 30 times on the same inputs under torch's defaults and under True, on the
CPU also under "warn", and its results are compared bit for bit. This suite runs on the CPU;
`python -m benchmarks gpu` does the same on a GPU. The lists are the documentation of
`torch.use_deterministic_algorithms` in the installed torch, the call sites of its alert in the
compiled library, and the tolerances of torch's own operator tests. nondeterminism_lists.json
holds the last two.
"""

from __future__ import annotations

import json
import random
import re
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seedscope import seeded
from seedscope.costs.measurement import first_line
from seedscope.costs.timing import timed

from .budget import run_suite
from .harness import RESULTS, environment, parse, show, suite_parser, summary
from .items import Found, Item, Scale, Slot
from .operations.base import Inputs, Operation
from .operations.catalogue import OPERATIONS
from .record import failures, read

SEED = 1029
GROUP = "operations"
CPU_RESULTS = RESULTS / "op_atlas_cpu.json"
_PATIENCE_S = 1.0
MODES: dict[str, Any] = {"default": False, "warn": "warn", "True": True}
LISTS = json.loads((Path(__file__).parent / "nondeterminism_lists.json").read_text())


def documented() -> dict[str, set[str]]:
    """Return each documented effect of strict settings, with the names that torch lists for it."""
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


def operation_item(
    operation: Operation, scale: Scale, group: str = GROUP, seconds: float = 0.4
) -> Item:
    """Return the item that measures one operation."""
    measure = partial(measure_operation, name=operation.name, scale=scale)
    return Item(group, operation.name, measure, seconds, "operations")


def by_importance(operations: Iterable[Operation]) -> tuple[list[Operation], list[Operation]]:
    """Return the operations that may not repeat, as far as is known, and the others.

    Operations that torch alerts on come first, then those that torch documents, then those
    that differed on the CPU.
    """
    documentation = documented()
    on_cpu = read(CPU_RESULTS)["found"][GROUP] if CPU_RESULTS.exists() else {}
    ranked: dict[int, list[Operation]] = {0: [], 1: [], 2: [], 3: []}
    for operation in operations:
        says = listed(operation, documentation, "cuda")
        default = on_cpu.get(operation.name, {}).get("modes", {}).get("default", {})
        signs = [says["alert"], says["documented"], default.get("distinct", 1) > 1, True]
        ranked[[*map(bool, signs)].index(True)].append(operation)
    return [*ranked[0], *ranked[1], *ranked[2]], ranked[3]


def measure_operation(slot: Slot, name: str, scale: Scale) -> Found:
    """Return, for each mode, distinct results, times and memory, or the error; and the lists."""
    operation = next(operation for operation in OPERATIONS if operation.name == name)
    modes = {mode: MODES[mode] for mode in MODES if mode != "warn" or not scale.is_cuda}
    runs = _runs(scale)
    found: dict[str, Found] = {}
    with seeded(SEED, deterministic=False):
        call = operation.make(Inputs(scale))
    for mode, deterministic in modes.items():
        found[mode] = _run(call, deterministic, runs, scale)
        if mode == "default" and "error" in found[mode]:
            return {"failed": found[mode]["error"]}  # this device or library lacks the operation
    running = {mode: modes[mode] for mode in modes if "error" not in found[mode]}
    _time(call, running, found, scale.is_cuda, 5 if scale.quick else 15)
    return {"runs": runs, "modes": found, **listed(operation, documented(), scale.device)}


def _run(call: Callable[[], Any], deterministic: Any, runs: int, scale: Scale) -> Found:
    """Return the number of distinct results in one mode, the warnings, and the peak of memory."""
    with seeded(SEED, deterministic=deterministic), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            call()  # the first call also allocates workspaces, which the libraries keep
            peak_mb = _peak_mb(call) if scale.is_cuda else None
            distinct = _distinct(call, runs)
        except Exception as error:
            return {"error": first_line(error)}
    lines = [first_line(warning.message) for warning in told]
    warned = [line for line in dict.fromkeys(lines) if "determinis" in line]
    return {"distinct": distinct, "warned": warned, "peak_mb": peak_mb}


def _peak_mb(call: Callable[[], Any]) -> float:
    """Return the peak of memory of a call, without its inputs."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _runs(scale: Scale) -> int:
    return 5 if scale.quick else 30


def _distinct(call: Callable[[], Any], runs: int) -> int:
    """Return the number of distinct results; compare them on their device."""
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


def _start(call: Callable[[], Any], mode: Any, is_cuda: bool) -> tuple[float, Callable[[], float]]:
    """Run `call` three times; return milliseconds of its launch, and a function for its time."""
    with seeded(SEED, deterministic=mode), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
        begin = time.perf_counter()
        reading = timed(call, 3, is_cuda)
        return (time.perf_counter() - begin) / 3 * 1e3, reading


def _time(
    call: Callable[[], Any],
    modes: dict[str, Any],
    found: dict[str, Found],
    is_cuda: bool,
    rounds: int,
) -> None:
    """Time the modes that run, in turns, and compare each with the default."""
    samples: dict[str, list[float]] = {mode: [] for mode in modes}
    launches: dict[str, list[float]] = {mode: [] for mode in modes}
    order = random.Random(SEED)
    begun = time.monotonic()
    for number in range(rounds + 1):
        if number > 5 and time.monotonic() - begun > _PATIENCE_S:
            break  # a slow operation needs fewer rounds
        in_turn = order.sample([*modes], len(modes))
        readings = {mode: _start(call, modes[mode], is_cuda) for mode in in_turn}
        if is_cuda:
            torch.cuda.synchronize()
        for mode, (launch_ms, reading) in readings.items() if number else ():  # the first warms up
            launches[mode].append(launch_ms)
            samples[mode].append(reading())
    for mode in modes:
        found[mode]["ms"] = summary(samples[mode])
        if is_cuda:
            found[mode]["launch_ms"] = summary(launches[mode])
        if "default" in modes:
            pairs = zip(samples[mode], samples["default"], strict=True)
            found[mode]["to_default"] = summary(a / b for a, b in pairs)


def verdict(mode: dict[str, Any] | None) -> str:
    if mode is None:
        return ""
    return "raises" if "error" in mode else str(mode["distinct"])


def rows(report: dict[str, Any], group: str = GROUP) -> list[list[str]]:
    """Return a row for each operation: results in each mode, ratio, memory, and the lists."""
    table = []
    for operation, found in measured(report, group).items():
        modes = found["modes"]
        ratio = modes["True"].get("to_default")
        cost = "" if ratio is None else f"{ratio['median']:.2f}x"
        says = ["yes" if found[name] else "" for name in ("alert", "operator_tests")]
        table.append(
            [
                operation,
                *(verdict(modes.get(mode)) for mode in MODES),
                cost + ", launch" * (bool(cost) and any(map(_waits_for_launch, modes.values()))),
                _memory(modes),
                ", ".join(found["documented"]),
                *says,
            ]
        )
    return table


def measured(report: dict[str, Any], group: str = GROUP) -> dict[str, Found]:
    """Return the result of each operation that could be measured."""
    found = report["found"].get(group, {})
    return {name: operation for name, operation in found.items() if "modes" in operation}


def silent(report: dict[str, Any], group: str = GROUP) -> list[str]:
    """Return the operations that run under True, say nothing, and do not repeat."""
    found = measured(report, group)
    return [name for name, x in found.items() if x["modes"]["True"].get("distinct", 1) > 1]


def _waits_for_launch(mode: dict[str, Any]) -> bool:
    """Return whether the CPU's launch, not the GPU's work, limits the time."""
    return "launch_ms" in mode and mode["launch_ms"]["median"] > 0.9 * mode["ms"]["median"]


def _memory(modes: dict[str, Any]) -> str:
    """Return the peaks by default and under True; no ratio, since a peak may be almost zero."""
    peaks = [modes[mode].get("peak_mb") for mode in ("default", "True")]
    return " to ".join(f"{peak:.3g}" for peak in peaks) if None not in peaks else ""


_LISTED = ["documented", "alert", "tests"]
HEADERS = ["operation", "default", "warn", "True", "True costs", "peak MB", *_LISTED]


def disagreements(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each conflict of documentation and measurement."""
    found = []
    for name, operation in measured(report).items():
        strict, plain = operation["modes"]["True"], operation["modes"]["default"]
        says = operation["documented"]
        if "error" in strict and "raises" not in says:
            found.append(f"{name}: raises under True, and is not documented to")
        # Some functions are documented as both, because only some of their modes raise.
        raises = "raises" in says and "switches" not in says
        if raises and "error" not in strict and report["device"] != "cpu":
            found.append(f"{name}: documented to raise under True, and runs")
        if strict.get("distinct", 1) > 1:
            found.append(f"{name}: {strict['distinct']} results under True")
        if plain["distinct"] > 1 and not operation["documented"]:
            found.append(f"{name}: {plain['distinct']} results by default, and is not documented")
    return found


def show_report(report: dict[str, Any]) -> None:
    title = (
        f"op_atlas on {report['device']}, small sizes, distinct results of {report['runs']} runs"
    )
    show(title, HEADERS, rows(report))
    found = disagreements(report) or ["nowhere"]
    show("where documentation and measurement disagree", [""], [[x] for x in found])
    if failed := failures(report, [GROUP]):
        show("could not be measured here", [""], [[x] for x in failed])


def main(arguments: list[str]) -> int:
    parser = suite_parser("op_atlas", __doc__)
    parser.add_argument("--only", default="", help="operations whose name contains this")
    options = parse(parser, arguments)
    scale = Scale("cpu", small=True, quick=options.quick)
    items = [operation_item(x, scale) for x in OPERATIONS if options.only in x.name]
    if not items:
        parser.error(f"--only {options.only}: no operation's name contains this")
    facts = environment("cpu") | {"quick": options.quick, "runs": _runs(scale)}
    report, file = run_suite(CPU_RESULTS.stem, items, facts, options.out)
    show_report(report)
    print(f"\nwritten: {file}")
    return 0
