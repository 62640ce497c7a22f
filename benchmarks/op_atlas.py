"""Which operations do not repeat under each setting, and what three lists say of them.

Each operation runs 30 times on the same inputs under torch's defaults and under True, on the
CPU also under "warn", and its results are compared bit for bit. This suite runs on the CPU;
`python -m benchmarks gpu` does the same on a GPU. The lists are the documentation of
`torch.use_deterministic_algorithms` in the installed torch, the call sites of its alert in the
compiled library, and the tolerances of torch's own operator tests. nondeterminism_lists.json
holds the last two. `python -m benchmarks replacements` measures what seedscope puts in the place
of those that raise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seedscope import seeded

from .budget import run_suite
from .harness import RESULTS, environment, parse, show, suite_parser
from .items import Found, Item, Scale, Slot
from .operations.base import Inputs, Operation
from .operations.catalogue import OPERATIONS
from .record import failures, read
from .repeats import SEED, Way, repeat, take_turns, waits_for_launch

GROUP = "operations"
CPU_RESULTS = RESULTS / "op_atlas_cpu.json"
#: Torch's own kernels: seedscope's do not stand in for those that raise.
MODES: dict[str, dict[str, Any]] = {
    "default": {"deterministic": False},
    "warn": {"deterministic": "warn"},
    "True": {"deterministic": True, "replacements": False},
}
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
    modes = [mode for mode in MODES if mode != "warn" or not scale.is_cuda]
    runs = _runs(scale)
    found: dict[str, Found] = {}
    with seeded(SEED, deterministic=False):
        call = operation.make(Inputs(scale))
    ways = {mode: Way(call, MODES[mode]) for mode in modes}
    for mode, way in ways.items():
        found[mode] = repeat(way, runs, scale.is_cuda)
        if mode == "default" and "error" in found[mode]:
            return {"failed": found[mode]["error"]}  # this device or library lacks the operation
    running = {mode: way for mode, way in ways.items() if "error" not in found[mode]}
    take_turns(running, found, "default", scale.is_cuda, 5 if scale.quick else 15)
    return {"runs": runs, "modes": found, **listed(operation, documented(), scale.device)}


def _runs(scale: Scale) -> int:
    return 5 if scale.quick else 30


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
                cost + ", launch" * (bool(cost) and any(map(waits_for_launch, modes.values()))),
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
