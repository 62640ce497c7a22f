"""Markdown tables of replacements on a GPU."""

from __future__ import annotations

from typing import Any

from .gpu_pieces import replaced
from .record import failures
from .repeats import waits_for_launch
from .replaced_times import NATIVE, REPLACED
from .tables import bullets, markdown, where

_HEADERS = ["call", "", "results", "torch's own, ms", "replacement, ms", "ratio", "peak MB"]


def replaced_tables(report: dict[str, Any]) -> str:
    """Return the section on replacements, or "" if none was measured."""
    found = replaced.measured(report)
    parts = []
    if found:
        runs = {one["runs"] for one in found.values()}
        parts = [
            f"## Replacements ({where(report)})",
            f"{len(found)} calls of operations that torch cannot repeat, "
            f"{', '.join(map(str, sorted(runs)))} runs each on the same inputs: in torch's own "
            "kernel under torch's defaults, and in a strict scope. *Proved*: at its first use the "
            "replacement gave the same bits again, and what torch's own kernel may give. "
            "*Launch*: the GPU waited for the CPU.",
            bullets([*replaced.verdicts(report), *replaced.natives(report)]),
            markdown(_HEADERS, [_row(name, one) for name, one in found.items()]),
        ]
    if texts := replaced.network_sentences(report):
        parts += ["### Networks that raise without replacements", bullets(texts)]
    if failed := failures(report, [replaced.GROUP, replaced.NETWORKS]):
        parts += ["### Could not be measured here", bullets(failed)]
    return "\n\n".join(parts)


def _row(name: str, found: dict[str, Any]) -> list[str]:
    native, ours = found[NATIVE], found[REPLACED]
    results = " and ".join(str(one.get("distinct", "raises")) for one in (native, ours))
    ratio = ours.get(f"to_{NATIVE}")
    cost = "" if ratio is None else "{median:.2f}x ({q1:.2f} to {q3:.2f})".format(**ratio)
    peaks = [one.get("peak_mb") for one in (native, ours)]
    memory = " to ".join(f"{peak:.3g}" for peak in peaks) if None not in peaks else ""
    return [name, found["state"], results, _ms(native), _ms(ours), cost, memory]


def _ms(found: dict[str, Any]) -> str:
    if "ms" not in found:
        return "-"
    return f"{found['ms']['median']:.3g}" + ", launch" * waits_for_launch(found)
