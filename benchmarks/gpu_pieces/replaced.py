"""Replacements on a GPU: whether each repeats and is proved, its cost, and two networks."""

from __future__ import annotations

import statistics
from functools import partial

from seedscope import seeded
from seedscope.costs.configurations import CONFIGURATIONS, STRICT, Effort
from seedscope.costs.session import Session, run_session

from ..items import Found, Item, Scale, Slot
from ..models import Case, Network, origin
from ..repeats import SEED
from ..replaced_calls import calls
from ..replaced_times import NATIVE, OWN, PROVED, REPLACED, measure_call

GROUP = PROCESS = "replacements"
NETWORKS = "networks with replacements"
WARN = next(one for one in CONFIGURATIONS if one.deterministic == "warn")
#: Networks that raise under True without replacements.
_NETWORKS = ("VGG-19", "DeepLabV3")


def items(scale: Scale) -> list[Item]:
    """Return the items: each operation in float32, the networks, then the other types."""
    networks = [
        Item(NETWORKS, name, partial(_network, model=name, scale=scale), 5.0, PROCESS)
        for name in _NETWORKS
    ]
    all_calls = calls()
    first, *others = dict.fromkeys(dtype for call in all_calls for dtype in call.dtypes)
    return [
        *_call_items(first, scale),
        *networks,
        *(item for dtype in others for item in _call_items(dtype, scale)),
    ]


def _call_items(dtype: str, scale: Scale) -> list[Item]:
    return [
        Item(
            GROUP,
            f"{call.name}, {dtype}",
            partial(_call, name=call.name, dtype=dtype, scale=scale),
            0.3,
            PROCESS,
        )
        for call in calls()
        if dtype in call.dtypes
    ]


def _call(slot: Slot, name: str, dtype: str, scale: Scale) -> Found:
    """Measure a call, in torch's own kernel and in a strict scope."""
    call = next(call for call in calls() if call.name == name)
    runs, rounds = (5, 5) if scale.quick else (30, 15)
    return measure_call(call, dtype, scale, runs, rounds)


def _network(slot: Slot, model: str, scale: Scale) -> Found:
    """Train twice from one seed under "warn" and strictly, and time a step of both."""
    with seeded(SEED, deterministic=False):
        network = Network(Case(model), scale)
    effort = Effort(rounds=6, block_s=0.01 if scale.quick else 0.1, repeats=2, steps=3)
    session = run_session(network.restart, [WARN, STRICT], effort)
    slot.keep(session.as_dict())
    with seeded(SEED) as scope:
        network.restart()()
    facts = {"origin": origin(model, scale.small), "input": network.input_shape}
    return session.as_dict() | facts | {REPLACED: dict(scope.replaced)}


def measured(report: Found) -> dict[str, Found]:
    """Return the result of each call that could be measured."""
    found = report["found"].get(GROUP, {})
    return {name: one for name, one in found.items() if "state" in one}


def verdicts(report: Found) -> list[str]:
    """Return sentences on the calls that do not repeat or are not proved, and on the cost."""
    found = measured(report)
    if not found:
        return []
    differ = [name for name, one in found.items() if one[REPLACED].get("distinct", 1) > 1]
    others = [
        f"{name}: {one[REPLACED].get('note', one['state'])}"
        for name, one in found.items()
        if one["state"] not in (PROVED, OWN)
    ]
    return [
        _listed("do not repeat in a strict scope", differ),
        _listed("were not replaced and proved", others),
        *_cost(found),
    ]


def natives(report: Found) -> list[str]:
    """Return sentences on torch's own kernels: which do not repeat, and which do not raise."""
    found = measured(report)
    differ = [name for name, one in found.items() if one[NATIVE].get("distinct", 1) > 1]
    own = [name for name, one in found.items() if one["state"] == OWN]
    return [
        _listed("do not repeat in torch's own kernel", differ),
        _listed("run in torch's own kernel, which does not raise under True", own),
    ]


def _listed(what: str, names: list[str]) -> str:
    return f"{what} ({len(names)}): {'; '.join(names) or 'none'}"


def _cost(found: dict[str, Found]) -> list[str]:
    """Return a sentence on the times of the proved replacements."""
    ratios = {
        name: one[REPLACED][f"to_{NATIVE}"]["median"]
        for name, one in found.items()
        if one["state"] == PROVED and f"to_{NATIVE}" in one[REPLACED]
    }
    if not ratios:
        return []
    least, most = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    ends = dict.fromkeys(f"{ratios[name]:.2f}x: {name}" for name in (least, most))
    middle = statistics.median(ratios.values())
    text = f"{middle:.2f}x the time of torch's own (median of {len(ratios)}; {'; '.join(ends)})"
    return [f"replacements take {text}"]


def network_sentences(report: Found) -> list[str]:
    """Return for each network whether its strict training repeats, and its time beside "warn"."""
    return [
        f"{name}: {_result(found)}"
        for name, found in report["found"].get(NETWORKS, {}).items()
        if REPLACED in found
    ]


def _result(found: Found) -> str:
    warned, strict = Session.from_dict(found).measurements
    ratio = statistics.median(a / b for a, b in zip(strict.ms, warned.ms, strict=True))
    names = [f"{name.removeprefix('aten::')} {count}x" for name, count in found[REPLACED].items()]
    return (
        f"{len(strict.digests)} strict runs gave {strict.distinct} result(s), under warn "
        f"{warned.distinct}; a strict step takes {statistics.median(strict.ms):.3g} ms, "
        f"{ratio:.2f}x that under warn; replaced in it: {', '.join(names) or 'nothing'}"
    )
