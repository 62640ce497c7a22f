"""Turns the JSON under benchmarks/results/ into Markdown tables and figures.

The results of GPUs come first. Every title names the device; a title of the CPU says that
the sizes are small.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

from . import determinism_cost
from .comparison import two_pairs, two_runs
from .figure import cost_figure
from .harness import RESULTS
from .record import read
from .replaced_tables import replaced_tables
from .tables import (
    atlas_tables,
    attention_tables,
    cost_tables,
    left_out,
    scope_tables,
    test_tables,
)

_HEAD = "Written by `python -m benchmarks report` from the JSON files beside it."


def write(results: Path, out: Path, gpu: str = "gpu*.json") -> list[Path]:
    """Write report.md and its figures; return the files, an empty list if there are no results.

    `gpu` is the pattern of the GPUs' files in the folder `results`.
    """
    out.mkdir(parents=True, exist_ok=True)
    on_gpu = {file.stem: read(file) for file in sorted(results.glob(gpu))}
    parts, files = [], []
    for name, report in on_gpu.items():
        if report["quick"] and results.resolve() == RESULTS.resolve():
            raise ValueError(f"{results / name}.json is a rehearsal, and no figure: take it away")
        figure = None
        if determinism_cost.training(determinism_cost.costs(report)):
            figure = f"{name}.svg"
            files.append(out / figure)
            cost_figure(report, files[-1])
        parts += _gpu_parts(report, figure)
    for one, other in combinations(on_gpu.values(), 2):
        if one["device"] == other["device"]:
            parts.append(two_runs(one, other))
    for suite, tables in (("determinism_cost", cost_tables), ("op_atlas", atlas_tables)):
        source = results / f"{suite}_cpu.json"
        if source.exists():
            parts.append(tables(read(source)))
    if parts:
        files.append(out / "report.md")
        text = "\n\n".join(["# What determinism costs", _HEAD, *filter(None, parts)])
        files[-1].write_text(text + "\n")
    return files


def _gpu_parts(report: dict[str, Any], figure: str | None) -> list[str]:
    others = (
        atlas_tables,
        replaced_tables,
        attention_tables,
        scope_tables,
        two_pairs,
        test_tables,
        left_out,
    )
    return [cost_tables(report, figure), *(tables(report) for tables in others)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks report", description=__doc__)
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help=f"folder of the JSON files, default: benchmarks/{RESULTS.name}",
    )
    parser.add_argument("--out", type=Path, help="folder of the report, default: the same")
    options = parser.parse_args(arguments)
    try:
        files = write(options.results, options.out or options.results)
    except ValueError as error:
        parser.error(str(error))
    if not files:
        parser.error(f"no figures of gpu, determinism_cost or op_atlas in {options.results}")
    for file in files:
        print(f"written: {file}")
    return 0
