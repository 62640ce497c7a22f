"""What replacements cost: while none is used, at the entry of a scope, and in place of a kernel.

A closed gate is timed by small calls before the kernels are registered and after, in turns. The
scopes are empty. Each operation is timed in torch's own kernel under torch's defaults, and in the
replacement in a strict scope, in turns, after the proof. On the CPU most of torch's own kernels
repeat: there the formula is called by itself, and its ratio says little of a GPU.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from seedscope import seeded

from .gate_cost import LISTED, OTHERS, gate_cost
from .harness import (
    environment,
    measure,
    paired,
    parse,
    progress,
    save,
    show,
    spread,
    suite_parser,
    summary,
)
from .import_cost import compiling, python
from .items import Scale
from .peers import SEED, block
from .replaced_calls import calls
from .replaced_times import NATIVE, REPLACED, measure_call

WITH, WITHOUT = "with seeded(1029)", "with seeded(1029, replacements=False)"

_FRESH = """
import json, sys, time
import numpy, torch
from seedscope import seeded
from seedscope.replacements import kernels
with seeded(1029, replacements=False): pass
begin = time.perf_counter(); kernels.install(); installed = time.perf_counter()
with seeded(1029): pass
entered = time.perf_counter()
print(json.dumps({
    "register_ms": 1e3 * (installed - begin), "scope_ms": 1e3 * (entered - installed),
    "kernels": len(kernels._libraries), "cuda_initialised": torch.cuda.is_initialized()}))
"""


def collect(scale: Scale) -> dict[str, Any]:
    """Return all results of this suite, ready for JSON."""
    rounds, block_s = (4, 0.001) if scale.quick else (50, 0.002)
    report = environment(scale.device) | {"quick": scale.quick}
    progress("a closed gate")
    report["gate"] = gate_cost(scale.device, rounds, block_s)
    report["scope"] = _scopes(10 if scale.quick else 250, block_s)
    report["fresh"] = _fresh_processes(2 if scale.quick else 7)
    report["operations"] = _operations(scale)
    return report


def _scopes(rounds: int, block_s: float) -> dict[str, Any]:
    """Return microseconds of an empty block with replacements and without, and the ratio."""
    arms = {
        WITH: block(lambda: seeded(SEED)).call,
        WITHOUT: block(lambda: seeded(SEED, replacements=False)).call,
    }
    samples = measure(arms, rounds=rounds, block_s=block_s)[0]
    times = {name: summary(values) for name, values in samples.items()}
    return {"us": times, "ratio": paired(samples[WITH], samples[WITHOUT])}


def _fresh_processes(count: int) -> dict[str, Any]:
    """Return milliseconds of the first registration of all kernels, in fresh processes.

    It loads the formulas too.
    """
    found = []
    with compiling() as environ:
        for number in range(count + 1):
            progress(f"the first registration, in fresh process {number} of {count}")
            found.append(json.loads(python(["-c", _FRESH], environ)))
    times = {key: summary(run[key] for run in found[1:]) for key in ("register_ms", "scope_ms")}
    return {**times, **{key: found[0][key] for key in ("kernels", "cuda_initialised")}}


def _operations(scale: Scale) -> dict[str, Any]:
    """Return times, and on a GPU peaks of memory and distinct results, of each call."""
    runs, rounds = (30, 15) if scale.is_cuda else (2, 9)
    runs, rounds = (2, 3) if scale.quick else (runs, rounds)
    found, all_calls = {}, calls()
    for number, call in enumerate(all_calls, 1):
        # Few of torch's kernels for the CPU take bfloat16.
        for dtype in call.dtypes if scale.is_cuda else call.dtypes[:1]:
            progress(f"{number} of {len(all_calls)}: {call.name}, {dtype}")
            found[f"{call.name}, {dtype}"] = measure_call(call, dtype, scale, runs, rounds)
    return found


def show_report(report: dict[str, Any]) -> None:
    print(f"replacements on {report['device']}, {report['date']}{', quick' * report['quick']}")
    for name, text in report["versions"].items():
        print(f"  {name}: {text}")
    rows = [
        [name, *(_spread(times[key]) for key in ("before_us", "more_us", "ratio"))]
        for name, times in report["gate"].items()
    ]
    n = report["gate"]["add"]["ratio"]["n"]
    headers = ["us of a call", "without kernels", "more with them", "ratio"]
    show(f"a closed gate, {n} rounds", headers, rows)
    rows = [[name, _spread(times)] for name, times in report["scope"]["us"].items()]
    rows.append(["ratio", spread(report["scope"]["ratio"], 3)])
    show("empty block", ["", "us"], rows)
    fresh = report["fresh"]
    what = f"first registration, {fresh['kernels']} kernels"
    rows = [[what, _spread(fresh["register_ms"])], ["scope after it", _spread(fresh["scope_ms"])]]
    show("in fresh processes", ["", "ms"], rows)
    _show_operations(report)
    show("aims", ["", "measured", "aim"], aims(report))


def _show_operations(report: dict[str, Any]) -> None:
    measured = {name: x for name, x in report["operations"].items() if "failed" not in x}
    rows = [[name, *_times(x)] for name, x in measured.items()]
    headers = ["milliseconds", NATIVE, REPLACED, "ratio (quartiles)"]
    show("torch's own kernel, and the replacement", headers, rows)
    if report["device"] != "cpu":
        rows = [
            [name, x["state"], *(_cell(x, way) for way in (NATIVE, REPLACED))]
            for name, x in measured.items()
        ]
        headers = ["distinct results, peak MB", "", NATIVE, REPLACED]
        show("results and memory", headers, rows)
    failed = [[name, x["failed"]] for name, x in report["operations"].items() if "failed" in x]
    if failed:
        show("could not be measured here", ["", ""], failed)


def _figure(value: float) -> str:
    """Return three digits, so that the tables fit a terminal."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def _spread(of: dict[str, float]) -> str:
    """Return median and quartiles."""
    median, q1, q3 = (_figure(of[key]) for key in ("median", "q1", "q3"))
    return f"{median} ({q1} to {q3})"


def _times(found: dict[str, Any]) -> list[str]:
    times = [found[way].get("ms") for way in (NATIVE, REPLACED)]
    cells = ["-" if ms is None else f"{ms['median']:.3g}" for ms in times]
    ratio = found[REPLACED].get(f"to_{NATIVE}")
    return [*cells, "" if ratio is None else _spread(ratio)]


def _cell(found: dict[str, Any], way: str) -> str:
    one = found[way]
    return "-" if "error" in one else f"{one['distinct']}, {one['peak_mb']:.3g}"


def aims(report: dict[str, Any]) -> list[list[str]]:
    """Return each aim beside the measurement."""
    gate = report["gate"]
    rows = [
        [f"a closed gate, {name}, us", f"{gate[name]['more_us']['median']:.1f}", "at most 5"]
        for name in LISTED
    ]
    rows += [
        [f"{name}, with kernels / without", f"{gate[name]['ratio']['median']:.2f}", "1.00"]
        for name in OTHERS
    ]
    ratio = f"{report['scope']['ratio']['median']:.2f}"
    return [*rows, ["a block / the same without replacements", ratio, ""]]


def main(arguments: list[str]) -> int:
    parser = suite_parser("replacements", __doc__)
    what = "where to measure, default: cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=what)
    options = parse(parser, arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here")
    torch.set_num_threads(1)
    scale = Scale(options.device, small=options.quick, quick=options.quick)
    report = collect(scale)
    show_report(report)
    print(f"\nwritten: {save(f'replacements_{options.device}', report, options.out)}")
    return 0
