"""What entering and leaving a scope costs, beside the sum of its primitives and its peers.

All arms are measured in one run, interleaved, at two stack depths: `torch.manual_seed`
formats the stack, so its users pay for each frame. Every arm is also run once around a
body that disturbs everything, to see what it leaves unrestored.
"""

from __future__ import annotations

import ctypes
import os
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.backends import cudnn

from seedscope import seeded, snapshot
from seedscope.settings import SETTINGS, values_for
from seedscope.sources import select_sources

from .harness import environment, frames, measure, paired, parse, save, show, suite_parser, summary
from .import_cost import import_cost
from .peers import SEED, Arm, Body, block, find_peers, forked, nothing, recipe

DEEP = 60  # frames: a training loop inside a trainer inside a launcher

BLOCK, DECORATOR, EMPTY = "with seeded(1029)", "@seeded(1029)", "empty function"
RECIPE = "hand-written recipe"
FLOOR, FLOOR_AS_SET = "sum of its primitives", "sum of its primitives, no writes"
RESEED, RESEED_FLOOR = "reseed as a worker does", "reseed: its primitives"


def primitives(device: str, deterministic: bool) -> Arm:
    """Return the unavoidable calls, once each, prepared as far as can be: the floor.

    It takes for granted what a scope has to find out: that NumPy holds its MT19937 with
    no Gaussian cached, that no accelerator has started, and which settings differ.
    """
    generators = [torch.default_generator]
    if device == "cuda":
        generators += torch.cuda.default_generators
    # The address of a generator's state is constant; struct mt19937_state has 625 words.
    bit_generator = np.random.get_bit_generator()
    address = bit_generator.ctypes.state_address
    words = memoryview((ctypes.c_char * (625 * 4)).from_address(address)).cast("B")
    settings = SETTINGS._settings
    reads = [setting.read for setting in settings.values()]
    # Which writes deterministic=True causes here, and what each undoes: found by doing it.
    before = SETTINGS.capture()
    SETTINGS.apply(values_for(deterministic, None, SEED), before)
    now = SETTINGS.capture()
    SETTINGS.restore(before)
    writes = [
        (settings[name].write, inside, outside)
        for name, inside, outside in zip(SETTINGS.names, now, before, strict=True)
        if inside != outside
    ]

    def run(body: Body = nothing) -> None:
        python, numpy = random.getstate(), bytes(words)
        states = [generator.get_state() for generator in generators]
        for read in reads:
            read()
        for write, inside, _ in writes:
            write(inside)
        random.seed(SEED)
        np.random.seed(SEED)
        for generator in generators:
            generator.manual_seed(SEED)
        try:
            body()
        finally:
            random.setstate(python)
            words[:] = numpy
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            for read in reads:
                read()
            for write, _, outside in writes:
                write(outside)

    return Arm(run, run, has_writes=deterministic)


def make_arms(device: str) -> dict[str, Arm]:
    kept = seeded(SEED)
    return {
        BLOCK: block(lambda: seeded(SEED)),
        "the same, object made before": block(lambda: kept),
        DECORATOR: Arm(seeded(SEED)(nothing), lambda body: seeded(SEED)(body)()),
        FLOOR: primitives(device, True),
        "seeded(1029, deterministic=False)": block(
            lambda: seeded(SEED, deterministic=False), has_writes=False
        ),
        FLOOR_AS_SET: primitives(device, False),
        EMPTY: Arm(nothing, lambda body: body()),
        RECIPE: block(recipe, is_peer=True),
        "fork_rng + manual_seed (torch alone)": block(forked, is_peer=True),
    }


def make_reseeds() -> dict[str, Body]:
    """Return what a DataLoader worker would call for each sample."""
    sources = select_sources(["python", "numpy", "torch", "unseeded"])

    def own() -> None:
        for source in sources:
            source.seed(SEED)

    def floor() -> None:
        random.seed(SEED)
        np.random.seed(SEED)
        torch.default_generator.manual_seed(SEED)

    def usual() -> None:
        random.seed(SEED)
        np.random.seed(SEED)
        torch.manual_seed(SEED)

    return {RESEED: own, RESEED_FLOOR: floor, "reseed: usual three calls": usual}


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
    """Return the names of what differs after `arm` was run around `disturb`."""
    np.random.seed(SEED)
    np.random.standard_normal()  # one of a pair: the other is cached
    random.gauss(0, 1)
    before = snapshot()
    try:
        arm.run(disturb)
        return list(snapshot().changed(before))
    finally:
        before.restore()


def training_step(device: str) -> Body:
    layers = [torch.nn.Linear(256, 256), torch.nn.Dropout(), torch.nn.Linear(256, 10)]
    model = torch.nn.Sequential(*layers).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs = torch.randn(64, 256, device=device)

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def collect(quick: bool) -> dict[str, Any]:
    """Return everything that this suite measures, ready for JSON; times in microseconds."""
    rounds, block_s = (25, 0.001) if quick else (250, 0.002)
    timing: dict[str, Any] = {"rounds": rounds, "block_s": block_s}
    outer = snapshot()
    step = training_step("cpu")
    peers, peer_versions, missing = find_peers()
    arms = make_arms("cpu") | peers
    report = environment("cpu")
    report["versions"] |= peer_versions
    report |= {"quick": quick, "missing": missing}

    calls = {name: arm.call for name, arm in arms.items()} | make_reseeds()
    depths = (frames() + 2, DEEP)  # the harness itself adds two
    report["depths"] = {}
    for depth, samples in measure(calls, depths=depths, **timing).items():
        report["depths"][depth] = results = {}
        for name, values in samples.items():
            arm = arms.get(name)
            floor = RESEED_FLOOR if arm is None else FLOOR if arm.has_writes else FLOOR_AS_SET
            results[name] = {**summary(values), "to_floor": paired(values, samples[floor])}
            if arm is not None and arm.is_peer:
                results[name]["peer_to_seedscope"] = paired(values, samples[BLOCK])
    outer.restore()

    runs = {name: arms[name].run for name in (BLOCK, FLOOR)}
    steps = measure({name: partial(run, step) for name, run in runs.items()}, **timing)[0]
    report["training_step"] = {
        name: {**summary(values), "to_floor": paired(values, steps[FLOOR])}
        for name, values in steps.items()
    }
    report["import"] = import_cost(3 if quick else 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # At the end, and once for nothing: use_deterministic_algorithms() loads inductor.
        left_unrestored(arms[EMPTY])
        report["left_unrestored"] = {name: left_unrestored(arm) for name, arm in arms.items()}
    return report


def show_report(report: dict[str, Any]) -> None:
    print(f"scope_overhead on {report['device']}, {report['date']}{', quick' * report['quick']}")
    for name, text in (report["versions"] | report["missing"]).items():
        print(f"  {name}: {text}")
    tables = {f"empty block, {depth} frames": arms for depth, arms in report["depths"].items()}
    tables["block with a training step"] = report["training_step"]
    spread, ratios = ("median", "q1", "q3", "min"), ("to_floor", "peer_to_seedscope")
    for title, arms in tables.items():
        rows = [
            [name, *(f"{arm[key]:.2f}" for key in spread)]
            + [f"{arm[key]['median']:.2f}" if key in arm else "" for key in ratios]
            for name, arm in arms.items()
        ]
        headers = ["microseconds", *spread, "to floor", "peers / seedscope"]
        show(f"{title}, {arms[BLOCK]['n']} rounds", headers, rows)
    imported = report["import"]
    times = {"from seedscope import seeded": "import_ms", "first scope": "first_scope_ms"}
    rows = [[what, *(f"{imported[key][q]:.2f}" for q in spread)] for what, key in times.items()]
    show("on top of torch and NumPy, in fresh processes", ["milliseconds", *spread], rows)
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
    """Return each aim of the design beside what was measured, at each depth."""

    def at_each_depth(value: Callable[[dict[str, Any]], float]) -> str:
        return ", ".join(f"{value(arms):.1f}" for arms in report["depths"].values())

    def quickest_library(arms: dict[str, Any], ratio: str) -> float:
        libraries = arms.keys() & report["versions"]
        return min((arms[name][ratio]["median"] for name in libraries), default=float("nan"))

    return [
        [f"{BLOCK}, us", at_each_depth(lambda arms: arms[BLOCK]["median"]), "at most 60"],
        [
            "... / floor",
            at_each_depth(lambda arms: arms[BLOCK]["to_floor"]["median"]),
            "at most 1.6",
        ],
        [
            "quickest library / seedscope",
            at_each_depth(lambda arms: quickest_library(arms, "peer_to_seedscope")),
            "at least 12",
        ],
        [
            "... / floor (no scope can do better)",
            at_each_depth(lambda arms: quickest_library(arms, "to_floor")),
            "",
        ],
        [
            "the decorator adds, us",
            at_each_depth(lambda arms: arms[DECORATOR]["median"] - arms[BLOCK]["median"]),
            "at most 6",
        ],
        [f"{RESEED}, us", at_each_depth(lambda arms: arms[RESEED]["median"]), "at most 12"],
        [
            "from seedscope import seeded, ms",
            f"{report['import']['import_ms']['median']:.1f}",
            "at most 100",
        ],
    ]


def main(arguments: list[str]) -> int:
    options = parse(suite_parser("scope_overhead", __doc__), arguments)
    # With two, the step waits for the other thread wherever that one's core is busy.
    torch.set_num_threads(1)
    report = collect(options.quick)
    show_report(report)
    print(f"\nwritten: {save('scope_overhead_cpu', report, options.out)}")
    return 0
