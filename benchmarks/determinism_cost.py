"""The cost of each determinism setting for small networks on the CPU, and which repeat.

The networks are stand-ins; `python -m benchmarks gpu` measures the real networks on a GPU.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from seedscope.costs.configurations import DEFAULT, STRICT, TUNED, UNFILLED, Configuration
from seedscope.costs.result import Cost, combine
from seedscope.costs.session import Session

from .budget import run_suite
from .harness import environment, parse, suite_parser
from .items import Found, Scale
from .models import EVALUATION, LARGE, TF32, TRAINING
from .networks import PROCESSES, network_item
from .record import failures

_NAME = "determinism_cost_cpu"
# The GPU's state by torch.cuda: clock in MHz, temperature in degrees, power in mW.
_STATES = (("clock_rate", "MHz", 1), ("temperature", "degrees C", 1), ("power_draw", "W", 1e-3))
# The bits of the reasons that held back a GPU's clock: https://docs.nvidia.com/deploy/nvml-api
_HELD_BACK = {0x84: "power", 0x60: "heat", 0x08: "the hardware"}
_NOTHING: Found = vars(Session(device="", benchmark=False, measurements=[]))


def costs(report: dict[str, Any], processes: Iterable[str] = PROCESSES) -> dict[str, Cost]:
    """Return the results of each network in the processes, by the network's name."""
    found: dict[str, list[Found]] = {}
    for process in processes:
        for name, session in report["found"].get(process, {}).items():
            found.setdefault(name, []).append(session)
    order = [case.name for case in (*TRAINING, *EVALUATION, TF32, LARGE)]
    names = sorted(found, key=lambda name: order.index(name) if name in order else len(order))
    return {name: cost_of(name, found[name], report["device"]) for name in names}


def training(found: dict[str, Cost]) -> dict[str, Cost]:
    """Return the results of the training steps in bf16, by the network's name alone."""
    end = ", train, bf16"
    return {name.removesuffix(end): cost for name, cost in found.items() if name.endswith(end)}


def cost_of(name: str, sessions: list[Found], device: str) -> Cost:
    """Return the results of the sessions, failed sessions included."""
    where = next((session["origin"] for session in sessions if "origin" in session), "unfinished")
    known = [Session.from_dict(_NOTHING | session) for session in sessions]
    return Cost(f"{name} ({where})", device, combine(known))


def clocks(report: dict[str, Any]) -> str:
    """Return a sentence on whether the machine's speed was the same in all processes."""
    groups = (report["found"].get(process, {}) for process in PROCESSES)
    sessions = [_NOTHING | session for group in groups for session in group.values()]
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
    return f"{text}; clocks held back at times by {', '.join(why)}" if why else text


def price_sentences(found: dict[str, Cost]) -> list[str]:
    """Return sentences on the cost of two settings: no autotuning, and filling new memory."""
    # Autotuning has no choice in a network without convolutions.
    tuned = {case.model for case in TRAINING if case.has_sizes}
    tunable = {name: cost for name, cost in found.items() if name in tuned}
    return [
        *_spread("cudnn.benchmark = False takes", tunable, DEFAULT, TUNED),
        *_spread("filling new memory under deterministic=True takes", found, STRICT, UNFILLED),
    ]


def _spread(
    what: str, found: dict[str, Cost], over: Configuration, under: Configuration
) -> list[str]:
    """Return a sentence on the ratio of two settings, over the networks that have both.

    A network counts only if the GPU, not the CPU, limits the time of a step.
    """
    ratios = {}
    for name, cost in found.items():
        known = {m.configuration: m.ratio for m in cost if m.ratio and not m.is_launch_bound}
        if over.name in known and under.name in known:
            ratios[name] = known[over.name] / known[under.name]
    if not ratios:
        return []
    least, most = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    ends = dict.fromkeys(f"{ratios[name]:.2f}x: {name}" for name in (least, most))
    return [
        f"{what} {statistics.median(ratios.values()):.2f}x the time of {under.name} (median of "
        f"{len(ratios)} networks; {'; '.join(ends)})"
    ]


def repeat_sentences(found: dict[str, Cost]) -> list[str]:
    """Return sentences on the networks that do not repeat: by default, and under True."""
    sentences = []
    for configuration in (DEFAULT, STRICT):
        of_it = {
            name: measurement
            for name, cost in found.items()
            for measurement in cost
            if measurement.configuration == configuration.name
        }
        ran = [name for name, measurement in of_it.items() if measurement.digests]
        differ = [name for name in ran if of_it[name].distinct > 1]
        if differ:
            text = f"{len(differ)} of {len(ran)} networks do not repeat: {'; '.join(differ)}"
            sentences.append(f"{configuration.name}: {text}")
        elif ran:
            sentences.append(f"{configuration.name}: all {len(ran)} networks that run repeat")
    return sentences


def launch_bound(found: dict[str, Cost]) -> list[str]:
    """Return a sentence on the networks in which the CPU limits the time of a step."""
    bound = {
        name: [m.configuration for m in cost if m.is_launch_bound] for name, cost in found.items()
    }
    names = [
        name if DEFAULT.name in names else f"{name} ({', '.join(names)})"
        for name, names in bound.items()
        if names
    ]
    text = "the CPU, which asks the GPU for work, sets the time of a step of: "
    return [text + "; ".join(names)] if names else []


def refusals(found: dict[str, Cost]) -> list[str]:
    """Return, for each network that cannot run under deterministic=True, the reason."""
    return [
        f"{name} cannot run under {measured.configuration}: {measured.error}"
        for name, cost in found.items()
        for measured in cost
        if measured.configuration == STRICT.name and measured.error
    ]


def show_report(report: dict[str, Any]) -> None:
    print(f"determinism_cost on {report['device']}, {report['date']}{', quick' * report['quick']}")
    found = costs(report)
    for cost in found.values():
        print(f"\n{cost}")
    print(f"\nsummary, on {report['device']}, small sizes")
    for name, cost in found.items():
        print(f"  {name}: {cost.recommendation()}")
    for sentence in filter(None, (*failures(report, PROCESSES), clocks(report))):
        print(f"  {sentence}")


def main(arguments: list[str]) -> int:
    parser = suite_parser("determinism_cost", __doc__)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    options = parse(parser, arguments)
    cases = [case for case in (TF32, *TRAINING, *EVALUATION) if options.only in case.name]
    if not cases:
        parser.error(f"--only {options.only}: no network's name contains this")
    scale = Scale("cpu", small=True, quick=options.quick)
    # Only the processes without autotuning: on the CPU cuDNN's switches do nothing.
    items = [
        network_item(case, process, scale)
        for process, benchmark in PROCESSES.items()
        for case in cases
        if not benchmark
    ]
    facts = environment("cpu") | {"quick": options.quick}
    report, file = run_suite(_NAME, items, facts, options.out)
    show_report(report)
    print(f"\nwritten: {file}")
    return 0
