"""The difference between two measurements of the same networks, in times and in bits."""

from __future__ import annotations

import statistics
from typing import Any

from seedscope.costs.configurations import DEFAULT
from seedscope.costs.result import Cost

from . import determinism_cost
from .networks import FIRST_PAIR, SECOND_PAIR
from .tables import bullets, where


def two_pairs(report: dict[str, Any]) -> str:
    """Return how far the two pairs of processes differ, or "" if a pair is missing."""
    pairs = [determinism_cost.costs(report, pair) for pair in (FIRST_PAIR, SECOND_PAIR)]
    text = bullets(_apart(*pairs))
    return f"## The second pair of processes ({where(report)})\n\n{text}" if text else ""


def two_runs(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return how far two runs on the same card differ, or "" if they share no network."""
    text = bullets(_apart(determinism_cost.costs(one), determinism_cost.costs(other)))
    return f"## Two runs ({where(one)}; {other['date'][:10]})\n\n{text}" if text else ""


def _apart(one: dict[str, Cost], other: dict[str, Cost]) -> list[str]:
    """Return sentences on how far two measurements of the same networks differ."""
    times, ratios, bits = dict[str, float](), dict[str, float](), dict[str, bool]()
    for name in (name for name in one if name in other):
        measurements = {measured.configuration: measured for measured in other[name]}
        for ours in one[name]:
            theirs = measurements.get(ours.configuration)
            if theirs is None or not (ours.ms and theirs.ms):
                continue
            what = f"{name}, {ours.configuration}"
            if ours.configuration == DEFAULT.name:
                times[name] = _change(statistics.median(ours.ms), statistics.median(theirs.ms))
            elif ours.ratio and theirs.ratio:
                ratios[what] = _change(ours.ratio, theirs.ratio)
            if ours.repeats and theirs.repeats:
                bits[what] = ours.digests[0] == theirs.digests[0]
    sentences = [
        *_furthest("times of a step by default", times),
        *_furthest("ratios to torch's defaults", ratios),
    ]
    if bits:
        others = "; ".join(what for what, same in bits.items() if not same)
        text = f"of {len(bits)} cells that repeat in both, {sum(bits.values())} have the same bits"
        sentences.append(f"{text}; not so: {others}" if others else text)
    return sentences


def _change(one: float, other: float) -> float:
    return max(one, other) / min(one, other) - 1


def _furthest(what: str, apart: dict[str, float]) -> list[str]:
    if not apart:
        return []
    middle, most = statistics.median(apart.values()), max(apart, key=apart.__getitem__)
    return [
        f"the same {len(apart)} {what} differ by {middle:.1%} in the median, and by "
        f"{apart[most]:.1%} at most ({most})"
    ]
