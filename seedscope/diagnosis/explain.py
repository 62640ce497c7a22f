"""From runs to a report: where they part, what is behind it, and what helps."""

from __future__ import annotations

import os

from .amount import Amount, amount
from .capture import Capture
from .causes import (
    GENERATOR_OUTSIDE,
    advice_of,
    find_cause,
    holders_of,
    kind_of,
    marks_shown,
)
from .compare import CONSTANT, PATH, RESULT, Difference, first_difference
from .evidence import Evidence, first_evidence, look, look_without_a_trace
from .places import caller_text, shown, source_of
from .regions import ADVICE as REGIONS
from .remedies import remedies
from .report import Divergence, Report, counted
from .runs import Program, Run
from .trace import Trace
from .witness import Witness

_CHANGED = 5
_IN_STEP = (
    "this process runs in step with others of its group, so that nothing was run again to look at "
    "the difference"
)
_HIDDEN = (
    "the runs with a trace are equal, and those without one differ: threads race, and a trace "
    "slows them down"
)


def explain(program: Program, runs: list[Run]) -> Report:
    """Return the report of some runs; runs the program again to look at a difference."""
    report = Report(
        reproducible=False,
        name=program.name,
        seed=program.seed,
        runs=len(runs),
        operations=[len(run.trace) for run in runs],
        error=_error(runs),
    )
    found = first_evidence(runs)
    if program.is_in_step:
        if found is not None:
            report.notes.append(_IN_STEP)
    elif found is not None:
        found = look(program, runs, found)
    elif not report.error:
        found = look_without_a_trace(program, runs)
        if found is not None:
            report.notes.append(_HIDDEN)
    report.reproducible = found is None and not report.error
    witness = Witness() if found is None else found.witness
    if found is not None:
        _tell(program, report, found)
    elif any(run.reseeded for run in runs) and not program.is_in_step:
        program.run("where a source is seeded", witness=witness)
    _tell_of_sources(report, runs, witness)
    report.notes += _notes(runs, witness, report)
    return report


def _tell(program: Program, report: Report, found: Evidence) -> None:
    cause = find_cause(found)
    report.first_divergence = _divergence(found)
    report.cause, report.because = cause.kind, cause.text
    others = holders_of(found, found.changed)
    if not program.is_in_step:
        report.remedies = remedies(program, cause, others, found)
    helps = any(one.helps for one in report.remedies)
    if not helps or cause.kind == GENERATOR_OUTSIDE:
        report.advice = advice_of(cause, found, [id(one) for one in program.restored])
    named = [one for one in marks_shown(found.changed) if one not in cause.text]
    report.changed = named[:_CHANGED]


def _divergence(found: Evidence) -> Divergence:
    difference = found.difference
    one, other = found.one.trace, found.other.trace
    numbers = found.numbers[0] + 1, found.numbers[1] + 1
    sizes = len(one), len(other)
    if difference is None:
        leaf = found.one.outcome.first_difference(found.other.outcome)
        assert leaf is not None
        return Divergence(None, sizes, numbers, leaf[0], values=leaf[1:])
    result = Divergence(None, sizes, numbers, kind_of(difference))
    index = difference.first
    result.index = len(one) + 1 if index is None else index + 1
    if None not in (difference.first, difference.second):
        result.meets = difference.meets
    if difference.last is not None:
        result.last_common = _step(one, difference.last)
    if difference.kind == PATH:
        result.paths = _step(one, index), _step(other, difference.second)
    elif difference.kind == CONSTANT:
        result.values = _values(one, other, difference)
    else:
        result.inputs_equal = difference.inputs_are_equal
    if index is not None:
        _describe(result, one, index, found)
    return result


def _describe(result: Divergence, trace: Trace, index: int, found: Evidence) -> None:
    place = trace.tables.places.values[trace.places[index]]
    result.operation = trace.operation(index)
    result.where, result.source = shown(place), source_of(place)
    if found.forward is not None:
        result.forward = _step(trace, found.forward)[1]
    captures = found.captures
    if captures:
        first = captures[0]
        result.arguments = first.arguments if result.values is None else ""
        result.module = found.inside or first.inside
        result.where = caller_text(first.stack) or result.where
        if found.difference is not None and found.difference.kind == RESULT:
            result.amount = _amount(captures)


def _amount(captures: list[Capture]) -> Amount | None:
    first = captures[0]
    for other in [one.outputs for one in captures[1:]] + [first.other or []]:
        if (found := amount(first.outputs, other)) is not None:
            return found
    return None


def _step(trace: Trace, index: int | None) -> tuple[str, str]:
    if index is None:
        return "its end", "with no further operation"
    return trace.operation(index), shown(trace.tables.places.values[trace.places[index]])


def _values(one: Trace, other: Trace, difference: Difference) -> tuple[str, str]:
    assert difference.first is not None
    assert difference.second is not None
    values = one.tables.constants.values
    texts = values[one.constants[difference.first]], values[other.constants[difference.second]]
    parts = [text.split(", ") for text in texts]
    if len(parts[0]) != len(parts[1]):
        return texts
    pairs = [(a, b) for a, b in zip(*parts, strict=True) if a != b]
    return ", ".join(a for a, _ in pairs), ", ".join(b for _, b in pairs)


def _error(runs: list[Run]) -> str:
    for number, run in enumerate(runs, 1):
        if run.error:
            return f"in run {number}, after {counted(len(run.trace), 'operation')}: {run.error}"
    return ""


def _tell_of_sources(report: Report, runs: list[Run], witness: Witness) -> None:
    for name in dict.fromkeys(name for run in runs for name in run.used):
        place = witness.drawn.get(name)
        line = "" if place is None else shown(place)
        first = next((run.first_draw for run in runs if run.first_draw), "")
        report.sources[name] = first or line if name == "torch" else line
    for name in dict.fromkeys(name for run in runs for name in run.reseeded):
        place = witness.seeded.get(name)
        report.seeded_inside[name] = "" if place is None else shown(place)


def _notes(runs: list[Run], witness: Witness, report: Report) -> list[str]:
    """Return what the runs could not show, and what of them needs a word."""
    notes = []
    if report.reproducible and os.environ.get("PYTHONHASHSEED", "random") == "random":
        notes.append(
            "one process cannot show the order of sets of strings (seedscope run fixes it)"
        )
    if uncompared := sorted({name for run in runs for name in run.uncompared}):
        notes.append(f"not compared, since it has no bits to read: {', '.join(uncompared)}")
    if regions := max(run.regions for run in runs):
        calls = counted(regions, "call")
        notes.append(f"{calls} of compiled regions, each one operation here: {REGIONS}")
    if witness.is_blind:
        notes.append("a debugger or a coverage tool is in the way of the lines of draws")
    if witness.is_cut:
        notes.append("the program runs many lines, so that only its first draws have a line")
    if not all(run.reached.is_whole for run in runs):
        notes.append("the function holds more than the 100,000 objects that were looked at")
    for number, other in enumerate(runs[1 : report.runs], 2):
        found = first_difference(runs[0].trace, other.trace)
        if found is not None and found.is_harmless:
            notes.append(_added(runs[0].trace, other.trace, found, number))
    return notes


def _added(one: Trace, other: Trace, found: Difference, number: int) -> str:
    """Tell of operations that one run alone has, and that have changed nothing."""
    assert found.meets is not None
    is_first = found.meets[0] > 0
    step = _step(one, found.first) if is_first else _step(other, found.second)
    return (
        f"run {1 if is_first else number} alone has {counted(max(found.meets), 'operation')} from "
        f"{step[0]} at {step[1]} on; all others are equal"
    )
