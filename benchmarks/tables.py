"""Markdown tables of the results. Every title names the device."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from seedscope.costs.configurations import CONFIGURATIONS, DEFAULT, TUNED
from seedscope.costs.measurement import Measurement
from seedscope.costs.result import Cost

from . import determinism_cost, op_atlas
from .gpu_pieces import cuda_tests, machine, scope
from .gpu_pieces.pieces import ATTENTION_GROUP
from .networks import ATTENTION, PROCESSES, SIZES
from .record import failures

_SILENT = "**These run under True, say nothing, and do not repeat: {}.**"
_LAUNCH = "*launch*: the GPU waited for the CPU, so that the time is the CPU's."


def where(report: dict[str, Any]) -> str:
    """Return the device, version and date for a title."""
    device = report["device"]
    what = f"{report['versions']['CPU']}, CPU only, small sizes" if device == "cpu" else device
    quick = ", quick" * report["quick"]
    return f"{what}, torch {report['versions']['torch']}, {report['date'][:10]}{quick}"


def markdown(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def bullets(texts: list[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


# ----------------------------------------------------------------------- networks


def cost_tables(report: dict[str, Any], figure: str | None = None) -> str:
    """Return the section on what determinism costs networks; `figure` is a file beside it."""
    found = determinism_cost.costs(report)
    if not found:
        return f"## No network was measured ({where(report)})"
    names = _present(found)
    rows = []
    for cost in found.values():
        measurements = {measured.configuration: measured for measured in cost}
        best = cost.cheapest
        cheapest = "none" if best is None else f"{best.configuration}, {best.ratio:.2f}x"
        rows.append([cost.name, *(_cell(measurements.get(name)) for name in names), cheapest])
    parts = [
        f"## What determinism costs ({where(report)})",
        *([] if figure is None else [f"![time of a step under each setting]({figure})"]),
        *facts(report),
        *_notes(report, found),
        "### Training steps and evaluations",
        "Milliseconds of a step by default, then times that; *n/m*: m repeats from one seed gave n "
        "different results; each is of three steps, and each process makes three. Of settings that "
        "cannot be told from the quickest that repeats, the strictest is suggested; one that torch "
        "does not check, where it warns, only if there is no other.",
        markdown(["network", *names, "suggested"], rows),
    ]
    return "\n\n".join([*parts, *_memory(found, names), *_first_steps(found), *_sizes(report)])


def facts(report: dict[str, Any]) -> list[str]:
    """Return the conditions of a GPU's figures, besides the GPU's name."""
    if "driver" not in report:
        return []
    canaries = report["found"].get(machine.GROUP, {}).get("canaries", {})
    count = sum(map(len, report["found"].values()))
    texts = [
        "Driver {}, CUDA {}, cuDNN {}".format(report["driver"], *report["torch"][1:]),
        *(f"{name} {version}" for name, version in report["libraries"].items()),
        f"{count} items measured, {len(report.get('left_out', []))} left out",
    ]
    if "copy_gb_s" in canaries:
        texts.append(f"a copy moves {canaries['copy_gb_s']:.0f} GB/s")
        texts.append(f"a bf16 product runs at {canaries['bf16_product_tflop_s']:.0f} TFLOP/s")
    # https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/cudnn/AutocastRNN.cpp
    lstm = "torch's autocast runs the LSTM in float16"
    return ["; ".join(texts) + f". Batches and sizes are in benchmarks/models.py; {lstm}."]


def _notes(report: dict[str, Any], found: dict[str, Cost]) -> list[str]:
    """Return sentences that say what the tables show."""
    training = determinism_cost.training(found)
    notes = [
        *determinism_cost.repeat_sentences(training),
        *determinism_cost.price_sentences(training),
        *determinism_cost.launch_bound(training),
        *determinism_cost.refusals(found),
        *failures(report, PROCESSES),
        *machine.plan_verdicts(report),
        determinism_cost.clocks(report),
    ]
    text = bullets([*filter(None, notes)])
    return ["### In short", text] if text else []


def _present(found: dict[str, Cost]) -> list[str]:
    present = {measured.configuration for cost in found.values() for measured in cost}
    return [one.name for one in CONFIGURATIONS if one.name in present]


def _cell(measured: Measurement | None) -> str:
    if measured is None:
        return ""
    if measured.error is not None:
        return "cannot run"
    results = f"{measured.distinct}/{len(measured.digests)}"
    if not measured.ms:
        return results
    if measured.configuration == DEFAULT.name:
        return f"{statistics.median(measured.ms):.3g} ms, {results}"
    # A session without the defaults gives no ratio.
    return results if measured.ratio is None else f"{measured.ratio:.2f}x, {results}"


def _memory(found: dict[str, Cost], names: list[str]) -> list[str]:
    """Return a table of the peaks of memory, if any was measured."""
    rows = []
    for name, cost in found.items():
        peaks = {measured.configuration: measured.peak_mb for measured in cost}
        if any(peaks.values()):
            rows.append(
                [
                    name,
                    *(
                        f"{peaks[configuration]:.0f}" if peaks.get(configuration) else ""
                        for configuration in names
                    ),
                ]
            )
    return ["### Peak of the GPU's memory, MB", markdown(["network", *names], rows)] if rows else []


def _first_steps(found: dict[str, Cost]) -> list[str]:
    """Return a table of the first steps, which show what autotuning costs once."""
    rows: list[list[str]] = []
    if not any(
        measured.configuration == TUNED.name for cost in found.values() for measured in cost
    ):
        return rows
    for name, cost in determinism_cost.training(found).items():  # evaluations reuse its plans
        first = {measured.configuration: measured.first_ms for measured in cost}
        rows.append(
            [
                name,
                *(_range(first.get(configuration.name, [])) for configuration in (DEFAULT, TUNED)),
            ]
        )
    headers = ["network", "defaults", "cudnn.benchmark = True"]
    return ["### The first step of a network, ms", markdown(headers, rows)] if rows else []


def _range(values: list[float]) -> str:
    """Return the least and the greatest value, or one number if both round to it."""
    return " to ".join(dict.fromkeys(f"{f(values):.0f}" for f in (min, max))) if values else ""


def _sizes(report: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in report["found"].get(SIZES, {}).items():
        if times := found.get("ms"):
            first, third = (sum(turns[i] for turns in times) / len(times) for i in (0, 2))
            rows.append([name, str(len(times)), f"{first:.2f}", f"{third:.2f}"])
    headers = ["network", "sizes", "first step, ms", "third step, ms"]
    parts = ["### New input sizes", markdown(headers, rows)] if rows else []
    failed = failures(report, [SIZES])
    return [*parts, bullets(failed)] if failed else parts


# ---------------------------------------------------------------------- operations


def atlas_tables(report: dict[str, Any]) -> str:
    rows = op_atlas.rows(report)
    if not rows:
        return ""
    counts: Counter[str] = Counter()
    told = []
    for row in rows:
        _, default, warn, strict, *_ = row
        counts["repeat by default"] += default == "1"
        counts["do not repeat by default"] += default not in ("1", "raises")
        counts["repeat under True"] += strict == "1"
        counts["raise under True"] += strict == "raises"
        counts["do not repeat under True"] += strict not in ("1", "raises")
        if {default, warn or "1", strict} != {"1"}:
            told.append(row)
    silent = op_atlas.silent(report)
    lacking = len(report["found"].get(op_atlas.GROUP, {})) - len(rows)
    if lacking:
        counts["could not be measured here"] = lacking
    summary = [[name, str(count)] for name, count in counts.items()]
    runs = {operation["runs"] for operation in op_atlas.measured(report).values()}
    parts = [
        f"## Which operations repeat ({where(report)})",
        f"{len(rows) + lacking} operations, {', '.join(map(str, sorted(runs)))} runs each on "
        "the same inputs. Times of a *backward* are with its forward.",
        markdown(["operations that", "number"], summary),
        *([_SILENT.format("; ".join(silent))] if silent else []),
        "### Those that do not always repeat, or raise (distinct results)",
        "*Documented*: under True it switches to an algorithm that repeats, raises, or fills new "
        "memory. *Alert*: the library says itself that it does not repeat. *Tests*: torch's own "
        "operator tests allow it a tolerance.",
        *([_LAUNCH] if any("launch" in row[4] for row in told) else []),
        markdown(op_atlas.HEADERS, told),
        "### Where documentation and measurement disagree",
        bullets(op_atlas.disagreements(report)) or "Nowhere.",
    ]
    if failed := failures(report, [op_atlas.GROUP]):
        parts += ["### Could not be measured here", bullets(failed)]
    return "\n\n".join(parts)


# ----------------------------------------------------------------- only measured on a GPU


def attention_tables(report: dict[str, Any]) -> str:
    rows = [
        [name.removeprefix("attention "), *map(_mode, (x["modes"]["default"], x["modes"]["True"]))]
        for name, x in op_atlas.measured(report, ATTENTION_GROUP).items()
    ]
    parts = []
    if rows:
        parts = [
            f"## Attention ({where(report)})",
            "16,384 tokens in sequences of that length, 16 heads of 64, causal, bf16; backward is "
            "with its forward. *n*: distinct results of the runs.",
            markdown(["backend and length", "default", "deterministic=True"], rows),
        ]
    for name, session in report["found"].get(ATTENTION, {}).items():
        cost = determinism_cost.cost_of(name, [session], report["device"])
        cells = [[measured.configuration, _cell(measured)] for measured in cost]
        parts += [f"### {name}, each backend pinned", markdown(["attention", "a step"], cells)]
    if failed := failures(report, [ATTENTION_GROUP, ATTENTION]):
        parts += ["### Could not be measured here", bullets(failed)]
    return "\n\n".join(parts)


def _mode(mode: dict[str, Any]) -> str:
    if "error" in mode:
        return "raises"
    memory = f", {mode['peak_mb']:.0f} MB" if mode.get("peak_mb") else ""
    return f"{mode['ms']['median']:.3g} ms, {mode['distinct']}{memory}"


def scope_tables(report: dict[str, Any]) -> str:
    found = report["found"].get(scope.GROUP, {})
    rows = []
    for item, measured in found.items():
        times = measured.get("us", {})
        nested = times if item == scope.SAMPLE else {item: times}
        for what, arms in nested.items():
            rows += [[what, name, *_times(arm)] for name, arm in arms.items()]
    headers = ["around", "", "us", "quartiles", "times its floor"]
    parts = [f"## The scope ({where(report)})", markdown(headers, rows)] if rows else []
    return "\n\n".join([*parts, *(f"{text}.".capitalize() for text in scope.call_sentences(found))])


def _times(arm: dict[str, Any]) -> list[str]:
    quartiles = f"{arm['q1']:.1f} to {arm['q3']:.1f}"
    return [f"{arm['median']:.1f}", quartiles, f"{arm['to_floor']['median']:.2f}"]


def test_tables(report: dict[str, Any]) -> str:
    rows = [
        [name, test["outcome"], cuda_tests.brief(test).replace("|", "/")]
        for name, test in cuda_tests.results(report).items()
    ]
    title = f"## The tests that need a GPU ({where(report)})"
    return "\n\n".join([title, markdown(["test", "outcome", ""], rows)]) if rows else ""


def left_out(report: dict[str, Any]) -> str:
    names = report.get("left_out", [])
    return "\n\n".join(["## Left out, for want of time", bullets(names)]) if names else ""
