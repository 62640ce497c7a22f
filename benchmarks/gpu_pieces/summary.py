"""The summary of a run on a GPU, in at most 100 lines of a terminal."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter

from seedscope.costs.configurations import CONFIGURATIONS, DEFAULT
from seedscope.costs.measurement import Measurement
from seedscope.costs.result import Cost
from seedscope.support.tables import aligned

from .. import determinism_cost, op_atlas
from ..data_samples import PLAIN, SEEDED
from ..items import Found
from ..networks import ATTENTION, PROCESSES, SIZES
from ..record import failures
from ..scope_arms import BLOCK, DECORATOR, FLOOR, RECIPE
from . import cuda_tests, machine, replaced, scope
from .pieces import ATTENTION_GROUP

_LINES, _WIDTH = 100, 80
#: The settings' names in the columns of a narrow table.
_SHORT = dict(
    zip(
        [configuration.name for configuration in CONFIGURATIONS],
        ["default", "bench", "cudnn", "+bench", "warn", "True", "nofill"],
        strict=True,
    )
)
_SCOPE_ROWS = (BLOCK, DECORATOR, FLOOR, RECIPE, scope.BARE)
_OPERATIONS = (op_atlas.GROUP, ATTENTION_GROUP)


def summary(report: Found) -> str:
    """Return the summary of a record: a heading, and a block for each piece."""
    sections = [
        _machine(report),
        _left_out(report),
        _tests(report),
        _networks(report),
        _operations(report),
        _replacements(report),
        _scope(report),
        _attention(report),
        _failures(report),
    ]
    lines = [line for section in sections for line in section]
    if len(lines) > _LINES:
        more = f"... {len(lines) - _LINES + 1} more lines: python -m benchmarks report has all"
        lines = [*lines[: _LINES - 1], more]
    return "\n".join(lines)


def _wrapped(text: str, most: int = 3) -> list[str]:
    """Return the text on at most `most` lines; the lines after the first are indented."""
    wrapper = textwrap.TextWrapper(
        _WIDTH, subsequent_indent="    ", max_lines=most, break_long_words=False
    )
    return wrapper.wrap(text)


def _listed(texts: list[str], most: int = 6) -> list[str]:
    """Return the first texts, on at most two lines each, and the number of the others."""
    lines = [line for text in texts[:most] for line in _wrapped(text, 2)]
    if len(texts) > most:
        lines.append(f"  ... and {len(texts) - most} more, in the report")
    return lines


def _machine(report: Found) -> list[str]:
    took = sum(run.get("took_s", 0) for run in report["runs"])
    found = report["found"].get(machine.GROUP, {}).get("canaries", {})
    rehearsal = ["REHEARSAL ON THE CPU: these figures mean nothing"] * report["quick"]
    lines = [
        *rehearsal,
        f"{report['device']}, driver {report['driver']}, {report['date'][:10]}",
        "torch {}, CUDA {}, cuDNN {}".format(*report["torch"])
        + f", {took:.0f} s in {len(report['runs'])} run(s)",
    ]
    if "copy_gb_s" in found:
        lines.append(
            f"a copy moves {found['copy_gb_s']:.0f} GB/s, "
            f"a bf16 product runs at {found['bf16_product_tflop_s']:.0f} TFLOP/s"
        )
    for sentence in machine.plan_verdicts(report):
        lines += _wrapped(sentence)
    return lines


def _tests(report: Found) -> list[str]:
    found = cuda_tests.results(report)
    if not found:
        return []
    outcomes = Counter(test["outcome"] for test in found.values())
    lines = ["", "tests: " + ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items())]
    texts = [
        f"  {test['outcome']}: {name}: {cuda_tests.brief(test)}"
        for name, test in found.items()
        if test["outcome"] not in ("passed", "skipped")
    ]
    return [*lines, *_listed(texts)]


def _networks(report: Found) -> list[str]:
    costs = determinism_cost.costs(report)
    if not costs:
        return []
    rows = [[_brief(name), *_cells(cost)] for name, cost in costs.items()]
    lines = [
        "",
        "a step: ms, then times that (* did not repeat, - cannot run); bench: cudnn.",
        'benchmark = True; cudnn: deterministic="cudnn"; +bench: both; nofill: True, no',
        "fill; use: the suggested setting",
        *(line[2:] for line in aligned([["network", *_SHORT.values(), "use"], *rows])),
    ]
    training = determinism_cost.training(costs)
    sentences = [
        *determinism_cost.price_sentences(training),
        *determinism_cost.launch_bound(training),
        *determinism_cost.refusals(training),
        determinism_cost.clocks(report),
    ]
    return [*lines, *(line for text in filter(None, sentences) for line in _wrapped(text))]


def _brief(name: str) -> str:
    return name.replace(", train", "").replace(", bf16", "").replace(",", "")


def _cells(cost: Cost) -> list[str]:
    measurements = {measured.configuration: measured for measured in cost}
    best = cost.cheapest
    use = "" if best is None else _SHORT[best.configuration]
    return [*(_cell(measurements.get(name)) for name in _SHORT), use]


def _cell(measured: Measurement | None) -> str:
    if measured is None:
        return ""
    if measured.error is not None:
        return "-"
    mark = "" if measured.repeats else "*"
    if not measured.ms:
        return f"?{mark}"
    if measured.configuration == DEFAULT.name:
        return f"{statistics.median(measured.ms):.3g}{mark}"
    return f"{measured.ratio:.2f}{mark}" if measured.ratio else f"?{mark}"


def _operations(report: Found) -> list[str]:
    found = op_atlas.measured(report)
    if not found:
        return []
    modes = {name: operation["modes"] for name, operation in found.items()}
    differ = [name for name, x in modes.items() if x["default"].get("distinct", 1) > 1]
    raising = [name for name, x in modes.items() if "error" in x["True"]]
    said = [name for name in raising if name not in differ]
    silent = op_atlas.silent(report)
    texts = {
        f"run under True and do not repeat ({len(silent)})": silent,
        f"do not repeat by default ({len(differ)})": differ,
        f"of {len(raising)} that raise under True, these differ": [
            x for x in raising if x in differ
        ],
        f"of {len(raising)} that raise under True, these repeated all the same": said,
        "documentation and measurement disagree": op_atlas.disagreements(report),
    }
    lines = ["", f"operations: {len(found)} measured"]
    for what, names in texts.items():
        lines += _wrapped(f"  {what}: {'; '.join(names) or 'none'}", 4)
    return lines


def _replacements(report: Found) -> list[str]:
    found = replaced.measured(report)
    lines = ["", f"replacements: {len(found)} calls measured"] if found else []
    for sentence in [*replaced.verdicts(report), *replaced.network_sentences(report)]:
        lines += _wrapped(f"  {sentence}", 3)
    return lines


def _scope(report: Found) -> list[str]:
    found = report["found"].get(scope.GROUP, {})
    us = {name: item["us"] for name, item in found.items() if "us" in item}
    rows = [
        [f"{where}: {name}", f"{times['median']:.1f}", f"{times['to_floor']['median']:.2f}"]
        for where in us
        for name, times in us[where].items()
        if name in _SCOPE_ROWS
    ]
    for where, arms in us.get(scope.SAMPLE, {}).items():
        text = " to ".join(f"{arms[name]['median']:.1f}" for name in (PLAIN, SEEDED))
        rows.append([f"SeededDataset, a sample in a {where}", text, ""])
    lines = ["", "the scope, microseconds, and times its floor"] if rows else []
    lines += aligned([["", "us", "to floor"], *rows])[1:] if rows else []
    for sentence in scope.call_sentences(found):
        lines += _wrapped(f"  {sentence}", 2)
    return lines


def _attention(report: Found) -> list[str]:
    found = op_atlas.measured(report, ATTENTION_GROUP)
    lines: list[str] = []
    if found:
        rows: dict[str, list[str]] = {}
        for name, x in found.items():
            kind = name.removeprefix("attention ").rpartition(" ")[0]
            cells = [_timed(x["modes"].get(mode)) for mode in ("default", "True")]
            rows.setdefault(kind, [kind]).extend(cells)
        lines += ["", "attention, ms by default and under True (* did not repeat)"]
        headers = ["", "forward", "True", "and backward", "True"]
        lines += aligned([headers, *(row for row in rows.values() if len(row) == len(headers))])
    for name, session in report["found"].get(ATTENTION, {}).items():
        cost = determinism_cost.cost_of(name, [session], report["device"])
        cells = [f"{measured.configuration} {_cell(measured)}" for measured in cost] or ["nothing"]
        lines += _wrapped(f"  {_brief(name)} through each: {'; '.join(cells)}")
    return lines


def _timed(mode: Found | None) -> str:
    if mode is None or "error" in mode:
        return "-"
    return f"{mode['ms']['median']:.3g}" + ("*" if mode["distinct"] > 1 else "")


def _failures(report: Found) -> list[str]:
    groups = [*PROCESSES, ATTENTION, SIZES, machine.GROUP, scope.GROUP, *_OPERATIONS]
    groups += [replaced.GROUP, replaced.NETWORKS]
    failed = failures(report, groups)
    return ["", *_listed([f"failed: {text}" for text in failed])] if failed else []


def _left_out(report: Found) -> list[str]:
    names = report.get("left_out", [])
    if not names:
        return []
    return ["", *_wrapped(f"left out, for want of time ({len(names)}): {'; '.join(names)}", 6)]
