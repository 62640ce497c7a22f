"""Turns the JSON under benchmarks/results/ into Markdown tables and figures.

Every title names the device; without a GPU it says that the sizes are small.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from seedscope.costs import ARMS, DEFAULT, Cost, Measured
from seedscope.extras import load_extra

from . import determinism_cost, op_atlas
from .harness import RESULTS

_COLOURS = ("#9a9a9a", "#c9a227", "#5b9bd5", "#c8501e", "#7aa95c", "#234a7d", "#8e5ea2")


def where(report: dict[str, Any]) -> str:
    """The device, versions and date that a title needs."""
    device = report["device"]
    what = f"{report['versions']['CPU']}, CPU only, small sizes" if device == "cpu" else device
    quick = ", quick" * report["quick"]
    return f"{what}, torch {report['versions']['torch']}, {report['date'][:10]}{quick}"


def markdown(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def cost_tables(report: dict[str, Any]) -> str:
    found = determinism_cost.costs(report)
    names = [arm.name for arm in ARMS]
    present = {m.arm for cost in found.values() for m in cost}
    names = [name for name in names if name in present]
    rows = []
    for cost in found.values():
        arms = {measured.arm: measured for measured in cost}
        best = cost.cheapest
        cheapest = "none" if best is None else f"{best.arm}, {best.ratio:.2f}x"
        rows.append([cost.name, *(_cell(arms.get(name)) for name in names), cheapest])
    parts = [
        f"## What determinism costs ({where(report)})",
        "Milliseconds of a step by default, then times that; *n/m*: m repeats from one seed gave n "
        "different results. Of settings that cannot be told from the quickest that repeats, the "
        "strictest is named.",
        markdown(["network", *names, "cheapest that repeats"], rows),
        "![ratios](determinism_cost.svg)".replace(".svg", f"_{_device(report)}.svg"),
    ]
    extra = _attention_rows(found)
    if extra:
        parts += ["### Attention, each backend pinned", markdown(["network", "backend", ""], extra)]
    firsts = [_first_steps(name, cost) for name, cost in found.items()]
    if report["device"] != "cpu":
        headers = ["network", "defaults", "cudnn.benchmark = True"]
        parts += ["### The first step of a case, ms", markdown(headers, firsts)]
    sizes = _size_rows(report)
    if sizes:
        parts += [
            "### Eight new input sizes",
            markdown(["network", "benchmark", "first step, ms", "third step, ms"], sizes),
        ]
    sentences = (determinism_cost.plan_verdict(report), determinism_cost.clocks(report))
    if notes := bullets([*filter(None, sentences)]):
        parts += ["### Notes", notes]
    return "\n\n".join(parts)


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return ""
    if measured.error is not None:
        return "cannot run"
    results = f"{measured.distinct}/{len(measured.digests)}"
    if not measured.ms:
        return results
    if measured.arm == DEFAULT.name:
        return f"{sorted(measured.ms)[len(measured.ms) // 2]:.3g} ms, {results}"
    # Without the defaults there is nothing to compare with.
    return results if measured.ratio is None else f"{measured.ratio:.2f}x, {results}"


def _attention_rows(found: dict[str, Cost]) -> list[list[str]]:
    known = {arm.name for arm in ARMS}
    return [
        [name, measured.arm, _cell(measured)]
        for name, cost in found.items()
        for measured in cost
        if measured.arm not in known
    ]


def _first_steps(name: str, cost: Cost) -> list[str]:
    """What autotuning costs once."""
    arms = {measured.arm: measured for measured in cost}
    found = [arms.get(arm.name) for arm in (DEFAULT, *(a for a in ARMS if a.benchmark))]
    return [name, *(f"{min(m.first_ms):.0f}" if m and m.first_ms else "" for m in found[:2])]


def _size_rows(report: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, case in report["cases"].items():
        seen = set()
        for session in case["sessions"]:
            sizes, switch = session.get("new_sizes_ms"), session.get("benchmark")
            if sizes and switch not in seen:
                seen.add(switch)
                texts = [f"{sizes[turn]:.2f}" for turn in ("first", "third")]
                rows.append([name, "on" if switch else "off", *texts])
    return rows


def cost_figure(report: dict[str, Any], path: Path) -> None:
    """A row for each network, a mark for each setting: filled where it repeats."""
    figures = load_extra("matplotlib.figure", "The report")
    found = determinism_cost.costs(report)
    figure = figures.Figure(figsize=(9, 1.6 + 0.34 * len(found)), layout="constrained")
    axes = figure.subplots()
    for colour, arm in zip(_COLOURS, ARMS, strict=True):
        labelled = False
        for row, cost in enumerate(found.values()):
            for m in cost:
                if m.arm != arm.name or m.ratio is None:
                    continue
                low, high = m.interval() or (m.ratio, m.ratio)
                axes.plot([low, high], [row, row], color=colour, linewidth=1)
                fill = colour if m.repeats else "white"
                label = None if labelled else arm.name
                axes.plot(m.ratio, row, "o", color=colour, markerfacecolor=fill, label=label)
                labelled = True
    axes.axvline(1, color="#cccccc", zorder=0)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set(xlabel="time of a step, to torch's defaults (filled: every repeat gave the same bits)")
    axes.set_title(where(report), fontsize="medium")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    # The same bits each time: no random names, no date.
    with load_extra("matplotlib", "The report").rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})


def atlas_tables(report: dict[str, Any]) -> str:
    rows = op_atlas.rows(report)
    counts: Counter[str] = Counter()
    told = []
    for row in rows:
        _, default, warn, strict, *_ = row
        counts["repeat by default"] += default == "1"
        counts["do not repeat by default"] += default not in ("1", "raises")
        counts["repeat under True"] += strict == "1"
        counts["raise under True"] += strict == "raises"
        counts['do not repeat under "warn"'] += warn not in ("1", "raises")
        counts["do not repeat under True"] += strict not in ("1", "raises")
        if {default, warn, strict} != {"1"}:
            told.append(row)
    failed = op_atlas.failures(report)
    if failed:
        counts["could not be measured here"] = len(failed)
    summary = [[name, str(count)] for name, count in counts.items()]
    parts = [
        f"## Which operations repeat ({where(report)})",
        f"{len(report['operations'])} operations, {report['runs']} runs each on the same inputs.",
        markdown(["operations that", "number"], summary),
        "### Those that do not always repeat, or raise (distinct results)",
        "*Documented*: under True it switches to an algorithm that repeats, raises, or fills new "
        "memory. *Alert*: the library says itself that it does not repeat. *Tests*: torch's own "
        "operator tests allow it a tolerance.",
        *["*launch*: the GPU waited for the CPU, so that the time is the CPU's."]
        * any("launch" in row[4] for row in told),
        markdown(op_atlas.HEADERS, told),
        "### Where documentation and measurement disagree",
        bullets(op_atlas.disagreements(report)) or "Nowhere.",
    ]
    if failed:
        parts += ["### Could not be measured here", bullets(failed)]
    return "\n\n".join(parts)


def bullets(texts: list[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _device(report: dict[str, Any]) -> str:
    return "cpu" if report["device"] == "cpu" else "cuda"


def write(results: Path, out: Path) -> list[Path]:
    """Write report.md and its figures; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    parts, files = [], []
    for device in ("cuda", "cpu"):
        for suite, tables in (("determinism_cost", cost_tables), ("op_atlas", atlas_tables)):
            source = results / f"{suite}_{device}.json"
            if not source.exists():
                continue
            report = json.loads(source.read_text())
            parts.append(tables(report))
            if suite == "determinism_cost":
                files.append(out / f"{suite}_{device}.svg")
                cost_figure(report, files[-1])
    if parts:
        head = "Written by `python -m benchmarks report` from the JSON files beside it."
        files.append(out / "report.md")
        files[-1].write_text("\n\n".join(["# What determinism costs", head, *parts]) + "\n")
    return files


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--out", type=Path, help="folder of the report, default: the same")
    options = parser.parse_args(arguments)
    files = write(options.results, options.out or options.results)
    if not files:
        parser.error(f"no determinism_cost or op_atlas results in {options.results}")
    for file in files:
        print(f"written: {file}")
    return 0
