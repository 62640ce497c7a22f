"""What each determinism setting costs well-known networks, and which of them repeat.

One process for each value of `cudnn.benchmark`, in A B B A order: cuDNN keeps the plans that
it has chosen for the life of a process. Each case is written as it is measured; started
again, the suite goes on where it stopped.
"""

from __future__ import annotations

import gc
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seedscope import seeded
from seedscope.costs import (
    ARMS,
    SEED,
    Arm,
    Cost,
    Effort,
    arms_of,
    benchmark_order,
    combine,
    first_line,
    run_session,
)

from .harness import environment, parse, save, suite_parser
from .models import CASES, Case, make_step, origin
from .resumable import Found, measure_all

_BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
_SIZES = 8  # new heights and widths of the input, one step each
# Autotuning takes seconds for each size: two networks show it.
_SIZED = (Case("ResNet-50"), Case("U-Net"))
_PLANS = "plan cache"
# What torch.cuda says of the GPU: clock in MHz, temperature in degrees, power in mW.
_STATES = (("clock_rate", "MHz", 1), ("temperature", "degrees C", 1), ("power_draw", "W", 1e-3))


def attention_arms() -> list[Arm]:
    return [
        Arm(f"{backend}{', deterministic=True' * strict}", strict, backend=backend)
        for backend in _BACKENDS
        for strict in (False, True)
    ]


def effort_of(case: Case, quick: bool) -> Effort:
    if quick:
        return Effort(rounds=3, block_s=0.01, steps=3)
    if case.mode == "train":
        return Effort(rounds=6, block_s=0.08, steps=3)
    return Effort(rounds=4, block_s=0.05, steps=3)


def run_case(
    case: Case, benchmark: bool, device: str, quick: bool, new_sizes: bool
) -> dict[str, Any]:
    """Measure one case in this process."""
    is_cuda = device == "cuda"
    arms = arms_of(ARMS, benchmark, is_cuda)
    if case.has_attention and is_cuda and not benchmark:
        arms += attention_arms()  # the CPU's stand-ins do not go through them
    try:
        with seeded(SEED, deterministic=False):  # puts the precision back
            if case.precision == "tf32":
                torch.set_float32_matmul_precision("high")
            found = run_session(partial(make_step, case, device), arms, effort_of(case, quick))
            if new_sizes and case in _SIZED:
                try:
                    found["new_sizes_ms"] = _new_sizes(case, arms[0], device)
                except torch.OutOfMemoryError as error:  # what is measured so far stays
                    found["failed"] = f"new input sizes: {first_line(error)}"
        return found
    finally:
        gc.collect()
        if is_cuda:
            torch.cuda.empty_cache()


def _new_sizes(case: Case, arm: Arm, device: str) -> dict[str, float]:
    """Milliseconds of a step at each of eight new input sizes, the first time and the third."""
    first, third = 0.0, 0.0
    start = 40 if device == "cpu" else 160
    with arm.open():
        for number in range(_SIZES):
            step = make_step(case, device, start + 16 * number)
            for turn in range(3):
                begin = time.perf_counter()
                step()
                if device == "cuda":
                    torch.cuda.synchronize()
                passed = (time.perf_counter() - begin) * 1e3
                first += passed * (turn == 0)
                third += passed * (turn == 2)
    return {"first": first / _SIZES, "third": third / _SIZES}


def measure(group: str, item: str, device: str, quick: bool) -> Found:
    """Measure one item of a process: a case, or how cuDNN keeps its plans."""
    if group == _PLANS:
        return {"ms": _plan_cache()}
    case = next(case for case in CASES if case.name == item)
    order = processes(device)
    is_early = group in [*order][:2]  # one for each value of benchmark: tuning takes seconds a size
    return run_case(case, order[group], device, quick, new_sizes=is_early)


def processes(device: str) -> dict[str, bool]:
    """The processes, each with its value of `cudnn.benchmark`."""
    order = benchmark_order(device == "cuda")
    return {f"process {number}": benchmark for number, benchmark in enumerate(order, 1)}


def collect(device: str, quick: bool, folder: Path, cases: tuple[Case, ...]) -> dict[str, Any]:
    """Return everything that this suite measures, ready for JSON."""
    facts = environment(device) | {"quick": quick}
    names = [case.name for case in cases]
    groups = {_PLANS: ["conv2d"]} if device == "cuda" else {}
    groups |= {process: names for process in processes(device)}
    origins = {case.name: origin(case.model, device == "cpu") for case in cases}
    done, part = measure_all(
        f"determinism_cost_{device}",
        folder,
        {name: facts[name] for name in ("device", "versions", "quick")} | {"origins": origins},
        groups,
        partial(measure, device=device, quick=quick),
    )
    nothing: Found = {"arms": [], "canary_ms": []}
    return facts | {
        "part": str(part),
        "plan_cache": done.get((_PLANS, "conv2d"), {}),
        "cases": {
            case.name: {
                "origin": origins[case.name],
                "sessions": [nothing | done[process, case.name] for process in processes(device)],
            }
            for case in cases
        },
    }


def _plan_cache() -> dict[str, float]:
    """Milliseconds of a convolution's first call with `benchmark` on, and of a later one.

    "after benchmark off" is of shapes that were used with it off: where that is as quick as
    a later call, cuDNN's plans were kept and nothing was tuned.
    """
    found = {}
    # The first starts cuDNN, and is no plan's time.
    cases = ("", 28), ("first, benchmark on", 56), ("first, after benchmark off", 60)
    for name, size in cases:
        x = torch.randn(16, 64, size, size, device="cuda")
        weight = torch.randn(64, 64, 3, 3, device="cuda")
        for benchmark in [False, True] if "off" in name else [True]:
            torch.backends.cudnn.benchmark = benchmark
            found[name] = _call_ms(x, weight)
    found["later"] = _call_ms(x, weight)
    del found[""]
    return found


def _call_ms(x: torch.Tensor, weight: torch.Tensor) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    torch.nn.functional.conv2d(x, weight, padding=1)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3


def plan_verdict(report: dict[str, Any]) -> str:
    """Return a sentence on whether `cudnn.benchmark` reaches shapes that were used without it."""
    plans = report["plan_cache"]
    if "ms" not in plans:
        return f"cuDNN's plans: {plans['failed']}" if plans else ""
    first, after, later = plans["ms"].values()
    kept = after**2 < first * later
    what = "are kept: benchmark has no effect on them" if kept else "are chosen anew with it on"
    figures = ", ".join(f"{name}: {ms:.2f} ms" for name, ms in plans["ms"].items())
    return f"cuDNN's plans of shapes that were used with benchmark off {what} ({figures})"


def costs(report: dict[str, Any]) -> dict[str, Cost]:
    """Return what was found of each case."""
    return {
        name: Cost(f"{name} ({case['origin']})", report["device"], combine(case["sessions"]))
        for name, case in report["cases"].items()
    }


# Bits that say why a GPU's clock was held back: https://docs.nvidia.com/deploy/nvml-api
_HELD_BACK = {0x84: "power", 0x60: "heat", 0x08: "the hardware"}


def clocks(report: dict[str, Any]) -> str:
    """Return a sentence on whether the machine was as quick in all processes."""
    sessions = [session for case in report["cases"].values() for session in case["sessions"]]
    products = [statistics.median(x["canary_ms"]) for x in sessions if x["canary_ms"]]
    if not products:
        return ""
    text = (
        "how steady the clocks were: a fixed matrix product, timed beside the networks, took "
        f"{min(products):.3g} to {max(products):.3g} ms"
    )
    states = [session["gpu"] for session in sessions if session.get("gpu")]
    for name, unit, scale in _STATES:
        values = [state[name] * scale for state in states if name in state]
        text += f", {min(values):.0f} to {max(values):.0f} {unit}" if values else ""
    reasons = {int(state.get("throttle_reasons", 0)) for state in states}
    why = [what for bits, what in _HELD_BACK.items() if any(bits & reason for reason in reasons)]
    return text + f"; clocks held back at times by {', '.join(why)}" * bool(why)


def show_report(report: dict[str, Any]) -> None:
    print(f"determinism_cost on {report['device']}, {report['date']}{', quick' * report['quick']}")
    found = costs(report)
    for cost in found.values():
        print(f"\n{cost}")
    sizes = ", small sizes" * (report["device"] == "cpu")
    print(f"\nsummary, on {report['device']}{sizes}")
    for name, cost in found.items():
        failed = {session.get("failed") for session in report["cases"][name]["sessions"]} - {None}
        known = [cost.recommendation()] * bool([*cost])
        print(f"  {name}: {'; '.join([*known, *sorted(failed)])}")
    for sentence in filter(None, (plan_verdict(report), clocks(report))):
        print(f"  {sentence}")


def main(arguments: list[str]) -> int:
    parser = suite_parser("determinism_cost", __doc__, "cpu", "cuda")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parse(parser, arguments)
    cases = tuple(case for case in CASES if options.only in case.name)
    if not cases:
        parser.error(f"--only {options.only}: no case's name contains this")
    report = collect(options.device, options.quick, options.out, cases)
    file = save(f"determinism_cost_{options.device}", report, options.out)
    show_report(report)
    print(f"\nwritten: {file}")
    return 0
