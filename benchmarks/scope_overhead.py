"""The cost of entering and leaving a scope, beside the sum of its primitives and its peers.

All arms are measured in one run, interleaved, at two stack depths: `torch.manual_seed`
formats the stack, so its users pay for each frame. Every arm is also run once around a
body that disturbs everything, to find what the arm leaves unrestored.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.backends import cudnn

from seedscope import snapshot

from .harness import environment, frames, measure, paired, parse, save, show, suite_parser, summary
from .import_cost import import_cost
from .peers import SEED, Arm, Body, find_peers
from .scope_arms import (
    BLOCK,
    DECORATOR,
    EMPTY,
    FLOOR,
    FLOOR_AS_SET,
    FORKED,
    LOG,
    NEW_SEED,
    RECIPE,
    RESEED,
    RESEED_FLOOR,
    SAMPLE,
    STEP,
    STREAM,
    make_arms,
    make_others,
    make_reseeds,
    training_step,
)

DEEP = 60  # frames, as of a training loop inside a trainer inside a launcher


def disturb() -> None:
    """Draw from every source, and change what a training script may change."""
    random.gauss(0, 1)
    np.random.standard_normal()
    torch.rand(1)
    np.random.default_rng().random()
    if torch.cuda.is_initialized():
        torch.rand(1, device="cuda")
    cudnn.benchmark = not cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(7)  # also queues a seed for each accelerator that is not initialised
    os.environ["PYTHONHASHSEED"] = "7"


def left_unrestored(arm: Arm) -> list[str]:
    """Return the names of the states that differ after `arm` ran around `disturb`."""
    np.random.seed(SEED)
    np.random.standard_normal()  # draws a pair, and caches the second
    random.gauss(0, 1)
    before = snapshot()
    try:
        arm.run(disturb)
        return list(snapshot().changed(before))
    finally:
        before.restore()


def collect(quick: bool) -> dict[str, Any]:
    """Return all results of this suite, ready for JSON; times are in microseconds."""
    rounds, block_s = (25, 0.001) if quick else (250, 0.002)
    timing: dict[str, Any] = {"rounds": rounds, "block_s": block_s}
    outer = snapshot()
    report = environment("cpu") | {"quick": quick, "inductor_is_loaded": _has_inductor()}
    arms = make_arms("cpu")
    with tempfile.TemporaryDirectory() as folder:
        others = make_others(Path(folder)) | make_reseeds()
        report["depths"] = _at_depths(arms, others, timing)
    # Some peers load inductor, whose configuration is slow to read, so a scope is timed anew.
    peers, peer_versions, missing = find_peers()
    report["versions"] |= peer_versions
    report["missing"] = missing
    report["inductor_is_loaded_by_peers"] = _has_inductor()
    arms = {name: arms[name] for name in (BLOCK, FLOOR, RECIPE, FORKED, EMPTY)} | peers
    report["beside_peers"] = _at_depths(arms, {}, timing)
    outer.restore()

    report["training_step"] = _around_a_step(arms, timing)
    report["import"] = import_cost(3 if quick else 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # At the end, and once in vain: use_deterministic_algorithms() loads inductor.
        left_unrestored(arms[EMPTY])
        report["left_unrestored"] = {name: left_unrestored(arm) for name, arm in arms.items()}
    return report


def _has_inductor() -> bool:
    return "torch._inductor.config" in sys.modules


def _at_depths(
    arms: dict[str, Arm], others: dict[str, Body], timing: dict[str, Any]
) -> dict[int, dict[str, Any]]:
    """Return microseconds of each arm at two depths, and ratios to its floor and to a scope."""
    calls = {name: arm.call for name, arm in arms.items()} | others
    depths = (frames() + 3, DEEP)  # the harness adds three frames
    results: dict[int, dict[str, Any]] = {}
    for depth, samples in measure(calls, depths=depths, **timing).items():
        results[depth] = {}
        for name, values in samples.items():
            floor = RESEED_FLOOR if "reseed" in name else FLOOR
            if name in arms and not arms[name].has_writes and FLOOR_AS_SET in samples:
                floor = FLOOR_AS_SET
            ratios = {"to_floor": paired(values, samples[floor])}
            ratios["to_scope"] = paired(values, samples[BLOCK])
            results[depth][name] = {**summary(values), **ratios}
    return results


def _around_a_step(arms: dict[str, Arm], timing: dict[str, Any]) -> dict[str, Any]:
    """Return microseconds of a small training step, bare and in a block, and of empty blocks."""
    step = training_step("cpu")  # made late, because an optimizer loads inductor
    runs = {name: arms[name].run for name in (BLOCK, FLOOR)}
    calls = {"neither": step} | {name: partial(run, step) for name, run in runs.items()}
    empty = {f"{name}, empty": arms[name].call for name in runs}
    steps = measure({**calls, **empty}, **timing)[0]
    return {
        name: {**summary(values), "to_floor": paired(values, steps[FLOOR])}
        for name, values in steps.items()
    }


def show_report(report: dict[str, Any]) -> None:
    print(f"scope_overhead on {report['device']}, {report['date']}{', quick' * report['quick']}")
    for name, text in (report["versions"] | report["missing"]).items():
        print(f"  {name}: {text}")
    tables = {}
    for where, title in (("depths", "empty block"), ("beside_peers", "beside peers")):
        tables |= {f"{title}, {depth} frames": arms for depth, arms in report[where].items()}
    tables["block with a training step"] = report["training_step"]
    spread, ratios = ("median", "q1", "q3", "min"), ("to_floor", "to_scope")
    for title, arms in tables.items():
        rows = [
            [name, *(f"{arm[key]:.2f}" for key in spread)]
            + [f"{arm[key]['median']:.2f}" if key in arm else "" for key in ratios]
            for name, arm in arms.items()
        ]
        headers = ["microseconds", *spread, "to floor", "to a scope"]
        show(f"{title}, {arms[BLOCK]['n']} rounds", headers, rows)
    imported = report["import"]
    times = {
        "from seedscope import seeded": "import_ms",
        "first scope": "first_scope_ms",
        "seedscope --help, the whole process": "help_ms",
        "python -c pass, the whole process": "python_ms",
    }
    rows = [[what, *(f"{imported[key][q]:.2f}" for q in spread)] for what, key in times.items()]
    show("in fresh processes, on top of torch and NumPy", ["milliseconds", *spread], rows)
    found = {
        "heavy modules loaded by import": imported["loaded_by_import"],
        "heavy modules loaded by the first scope": imported["loaded_by_first_scope"],
        "CUDA initialised by them": ["yes"] * imported["cuda_initialised"],
    }
    found |= {f"left unrestored: {name}": left for name, left in report["left_unrestored"].items()}
    rows = [[what, ", ".join(names) or "nothing"] for what, names in found.items()]
    show("checks", ["", "found"], rows)
    depths = " and ".join(map(str, report["depths"]))
    show(f"aims, at {depths} frames", ["", "measured", "aim"], aims(report))


def aims(report: dict[str, Any]) -> list[list[str]]:
    """Return each aim beside the measurement at each depth."""

    def times(name: str) -> str:
        return ", ".join(f"{arms[name]['median']:.1f}" for arms in report["depths"].values())

    def ratio(name: str, to: str) -> str:
        return ", ".join(f"{arms[name][to]['median']:.2f}" for arms in report["depths"].values())

    loaded = "loaded" if report["inductor_is_loaded"] else "not loaded"
    rows = [
        [f"{BLOCK}, us, inductor {loaded}", times(BLOCK), "at most 45"],
        ["... / sum of its primitives", ratio(BLOCK, "to_floor"), "at most 1.1"],
        ["a new seed each time / the same seed", ratio(NEW_SEED, "to_scope"), "at most 1.6"],
    ]
    likes = (DECORATOR, STEP, STREAM)
    rows += [[f"{name} / a block", ratio(name, "to_scope"), "0.9 to 1.1"] for name in likes]
    rows += [
        [f"{LOG}, us", times(LOG), "at most 300"],
        [f"{SAMPLE}, us", times(SAMPLE), "at most 30"],
        [f"{RESEED}, us", times(RESEED), ""],
    ]
    for key, what, aim in (
        ("import_ms", "from seedscope import seeded, ms", "at most 15"),
        ("help_ms", "seedscope --help, ms", "at most 60"),
    ):
        rows.append([what, f"{report['import'][key]['median']:.1f}", aim])
    return rows


def main(arguments: list[str]) -> int:
    options = parse(suite_parser("scope_overhead", __doc__), arguments)
    # With two threads, the step waits for the second thread if that thread's core is busy.
    torch.set_num_threads(1)
    report = collect(options.quick)
    show_report(report)
    print(f"\nwritten: {save('scope_overhead_cpu', report, options.out)}")
    return 0
