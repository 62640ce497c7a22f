"""What each determinism setting costs well-known networks, and which of them repeat.

One process for each value of `cudnn.benchmark`, in A B B A order: cuDNN keeps the plans that
it has chosen for the life of a process. Each case is written as it is measured; started
again, the suite goes on where it stopped.
"""

from __future__ import annotations

import gc
import json
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
    in_fresh_process,
    run_session,
)

from .harness import Progress, environment, parse, save, suite_parser
from .models import CASES, Case, make_step, origin

_BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
_SIZES = 8  # new heights and widths of the input, one step each
# Autotuning takes seconds for each size: two networks show it.
_SIZED = (Case("ResNet-50"), Case("U-Net"))


def attention_arms() -> list[Arm]:
    return [
        Arm(f"{backend}{', deterministic=True' * strict}", strict, backend=backend)
        for backend in _BACKENDS
        for strict in (False, True)
    ]


def effort_of(case: Case, quick: bool) -> Effort:
    if quick:
        return Effort(rounds=3, block_s=0.01, repeats=3)
    is_training = case.mode == "train"
    return Effort(rounds=6 if is_training else 4, block_s=0.08 if is_training else 0.05)


def run_case(case: Case, benchmark: bool, device: str, quick: bool) -> dict[str, Any]:
    """Measure one case in this process."""
    is_cuda = device == "cuda"
    arms = arms_of(ARMS, benchmark, is_cuda)
    if case.has_attention and not benchmark:
        arms += attention_arms()
    with seeded(SEED, deterministic=False):  # puts the precision back
        if case.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        found = run_session(partial(make_step, case, device), arms, effort_of(case, quick))
        if case in _SIZED:
            found["new_sizes_ms"] = _new_sizes(case, arms[0], device)
    gc.collect()
    if is_cuda:
        torch.cuda.empty_cache()
    return found


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


def run_process(
    session: int,
    benchmark: bool,
    cases: list[Case],
    device: str,
    quick: bool,
    part: Path,
    bar: Progress,
) -> Progress:
    """Measure `cases` one after another, and append each to `part` as it is done."""
    for case in cases:
        try:
            found = run_case(case, benchmark, device, quick)
        except Exception as error:  # one network that fails must not cost the others their time
            failed = f"{type(error).__name__}: {first_line(error)}"
            found = {"benchmark": benchmark, "arms": [], "canary_ms": [], "failed": failed}
        with open(part, "a") as file:
            file.write(json.dumps({"session": session, "case": case.name, "found": found}) + "\n")
        bar.advance(f"process {session + 1}, {case.name}")
    return bar


def collect(device: str, quick: bool, folder: Path, cases: tuple[Case, ...]) -> dict[str, Any]:
    """Return everything that this suite measures, ready for JSON."""
    facts = environment(device) | {"quick": quick}
    part = folder / f"determinism_cost_{device}.part.jsonl"
    done = _resume(part, {name: facts[name] for name in ("device", "versions", "quick")})
    order = benchmark_order(device == "cuda")
    bar = Progress("determinism_cost", len(order) * len(cases), len(done))
    for session, benchmark in enumerate(order):
        missing = [case for case in cases if (session, case.name) not in done]
        if missing:
            arguments = (session, benchmark, missing, device, quick, part, bar)
            bar = in_fresh_process(run_process, *arguments)
    done = _resume(part, None)
    if device == "cuda":
        facts["plan_cache_ms"] = in_fresh_process(_plan_cache)
    return facts | {
        "cases": {
            case.name: {
                "origin": origin(case.model, device == "cpu"),
                "sessions": [done[session, case.name] for session in range(len(order))],
            }
            for case in cases
        }
    }


def _resume(part: Path, facts: dict[str, Any] | None) -> dict[tuple[int, str], dict[str, Any]]:
    """What an interrupted run of the same facts has measured; else begin the file anew."""
    texts = part.read_text().splitlines(keepends=True) if part.exists() else []
    # The last line may have been cut short.
    lines = [json.loads(text) for text in texts if text.endswith("}\n")]
    if facts is not None:
        lines = lines if lines and lines[0] == facts else [facts]
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {(line["session"], line["case"]): line["found"] for line in lines[1:]}


def _plan_cache() -> dict[str, float]:
    """Whether plans chosen without autotuning are used with it: milliseconds of first calls.

    Where the first call with `benchmark` on, for shapes that were used with it off, is as
    quick as a repeated one, cuDNN's plans were kept and nothing was tuned.
    """
    found = {}
    # The first starts cuDNN, and is no plan's time.
    cases = (("", None, 28), ("fresh", None, 56), ("after benchmark off", False, 60))
    for name, before, size in cases:
        x = torch.randn(16, 64, size, size, device="cuda")
        weight = torch.randn(64, 64, 3, 3, device="cuda")
        for benchmark in [True] if before is None else [before, True]:
            torch.backends.cudnn.benchmark = benchmark
            torch.cuda.synchronize()
            begin = time.perf_counter()
            torch.nn.functional.conv2d(x, weight, padding=1)
            torch.cuda.synchronize()
            found[name] = (time.perf_counter() - begin) * 1e3
    del found[""]
    return found


def costs(report: dict[str, Any]) -> dict[str, Cost]:
    """Return what was found of each case."""
    return {
        name: Cost(f"{name} ({case['origin']})", report["device"], combine(case["sessions"]))
        for name, case in report["cases"].items()
    }


def show_report(report: dict[str, Any]) -> None:
    print(f"determinism_cost on {report['device']}, {report['date']}{', quick' * report['quick']}")
    found = costs(report)
    for cost in found.values():
        print(f"\n{cost}")
    sizes = ", small sizes" * (report["device"] == "cpu")
    print(f"\nsummary, on {report['device']}{sizes}")
    for name, cost in found.items():
        failed = {session.get("failed") for session in report["cases"][name]["sessions"]} - {None}
        print(f"  {name}: {', '.join(failed) or cost.recommendation()}")
    if probe := report.get("plan_cache_ms"):
        print(f"  first call with benchmark on, ms: {probe}")


def main(arguments: list[str]) -> int:
    parser = suite_parser("determinism_cost", __doc__, "cpu", "cuda")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    options = parse(parser, arguments)
    cases = tuple(case for case in CASES if options.cases in case.name)
    report = collect(options.device, options.quick, options.out, cases)
    show_report(report)
    print(f"\nwritten: {save(f'determinism_cost_{options.device}', report, options.out)}")
    (options.out / f"determinism_cost_{options.device}.part.jsonl").unlink()
    return 0
