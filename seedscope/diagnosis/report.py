"""The report of a diagnosis."""

from __future__ import annotations

import html
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

from ..support.conditions import devices, versions
from .amount import Amount
from .causes import OPERATION
from .remedies import Remedy

_LABEL = 23  # columns


@dataclass
class Divergence:
    """The first difference between two runs.

    Attributes:
        index: the number of the operation in the first run, from 1; None if what the function
            returns differs, but no operation.
        operations: the number of operations in each of the two runs.
        runs: the numbers of the two runs, from 1.
        what: which part differs: the result, a number among the arguments, or which operation; the
            path of what differs in what the function returns or leaves, if no operation does.
        operation: its name, such as `aten.index_put_.default`.
        arguments: those that are no tensors and no defaults.
        where: the line outside of torch that called it.
        source: the text of that line.
        module: the module or optimizer around it, with its class; empty if there is none.
        forward: the line of the forward operation, if it belongs to a backward.
        inputs_equal: whether all that it read was equal; None if the question has no meaning.
        amount: how much the results differ; None if it was not seen.
        values: what differs in the two runs, as text: an argument, a result.
        paths: where each run went, if another operation was called: (operation, line).
        last_common: the operation before, and its line.
        meets: after how many operations of each the runs go the same way again.
    """

    index: int | None
    operations: tuple[int, int]
    runs: tuple[int, int]
    what: str
    operation: str = ""
    arguments: str = ""
    where: str = ""
    source: str = ""
    module: str = ""
    forward: str = ""
    inputs_equal: bool | None = None
    amount: Amount | None = None
    values: tuple[str, str] | None = None
    paths: tuple[tuple[str, str], tuple[str, str]] | None = None
    last_common: tuple[str, str] | None = None
    meets: tuple[int, int] | None = None


@dataclass
class Report:
    """What `diagnose` has found; true if the function is reproducible.

    Attributes:
        reproducible: whether all runs were equal, and none raised.
        name: the name of the function.
        seed: the seed of each run.
        runs: the number of runs that were compared.
        operations: the number of operations in each of them.
        error: what a run raised, with the run and the place; empty if none did.
        first_divergence: the first difference; None if there is none.
        cause: the class of the cause; empty if there is no difference.
        because: the cause in a line.
        remedies: what was tried, and whether it has made the runs equal.
        advice: what to do, in a line.
        sources: the sources that were used, each with the line of its first draw if it is known.
        seeded_inside: the sources that other code has seeded inside, each with the line.
        changed: what the function holds and a run has left changed for the next.
        notes: what the runs could not show.
    """

    reproducible: bool
    name: str
    seed: int
    runs: int
    operations: list[int]
    error: str = ""
    first_divergence: Divergence | None = None
    cause: str = ""
    because: str = ""
    remedies: list[Remedy] = field(default_factory=list)
    advice: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    seeded_inside: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.reproducible

    def __str__(self) -> str:
        lines = textwrap.wrap(self._headline(), 79)
        for label, text in self._rows():
            if text:
                first, *more = textwrap.wrap(text, 79 - _LABEL)
                lines.append(f"  {label:<{_LABEL - 2}}{first}")
                lines += [" " * _LABEL + line for line in more]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the report for a notebook."""
        rows = "".join(
            f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(a)}</th>"
            f"<td style='text-align:left'>{html.escape(b)}</td></tr>"
            for a, b in self._rows()
            if b
        )
        return f"<b>{html.escape(self._headline())}</b><table>{rows}</table>"

    def as_dict(self) -> dict[str, Any]:
        """Return the whole report, in JSON's types, with the versions and devices."""
        divergence = self.first_divergence
        content = {**vars(self), "remedies": [one._asdict() for one in self.remedies]}
        if divergence is not None:
            amount = divergence.amount
            found = asdict(divergence)
            content["first_divergence"] = {**found, "amount": amount and amount._asdict()}
        return {**content, "versions": versions(), "devices": devices(), "text": str(self)}

    def _headline(self) -> str:
        count = f"{self.runs} runs"
        if self.error:
            return f"not reproducible: {self.name} raised"
        found = self.first_divergence
        if self.reproducible:
            size = counted(self.operations[0], "operation")
            return f"reproducible: {count} of {self.name} are equal, {size}"
        assert found is not None
        if max(found.runs) > 2:
            count = "runs {} and {}".format(*found.runs)
        if found.index is None:
            return f"not reproducible: {count} differ in what {self.name} returns or leaves"
        length = found.operations[0]
        if found.index > length:
            return f"not reproducible: {count} differ after operation {length:,}, the last of run 1"
        return f"not reproducible: {count} differ from operation {found.index:,} of {length:,} on"

    def _rows(self) -> Any:
        yield "raised", self.error
        if self.first_divergence is not None:
            yield from _of_divergence(self.first_divergence)
            if self.first_divergence.inputs_equal and self.cause == OPERATION:
                yield "inputs equal", f"yes: {self.because}"
            else:
                yield "cause", f"{self.cause}: {self.because}"
            yield "max difference", str(self.first_divergence.amount or "")
            for remedy in self.remedies:
                yield "what to do" if remedy.helps else "does not help", str(remedy)
            yield "what to do", self.advice
        drawn = [f"{name} ({line})" if line else name for name, line in self.sources.items()]
        yield "random sources used", ", ".join(drawn)
        for name, line in self.seeded_inside.items():
            yield "seeded inside", f"{name}: {line}" if line else name
        yield "left changed", ", ".join(self.changed)
        for note in self.notes:
            yield "note", note


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 operation`, `2 operations`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _of_divergence(found: Divergence) -> Any:
    if found.index is None:
        yield "first difference", found.what
    elif found.paths is None:
        arguments = f" ({found.arguments})" if found.arguments else ""
        yield "first difference", f"{found.operation}{arguments}"
    else:
        for run, (operation, where) in zip(found.runs, found.paths, strict=True):
            yield f"run {run} goes to", f"{operation}, {where}"
        if found.last_common is not None:
            yield "last common", ", ".join(found.last_common)
        if found.meets is not None:
            yield "together again", "after {} and {} operations".format(*found.meets)
    backward = f", backward of {found.forward}" if found.forward else ""
    inside = f"{found.module}{backward}" if found.module else backward.removeprefix(", ")
    yield "in", inside
    if found.paths is None:
        yield "called at", f"{found.where}: {found.source}" if found.source else found.where
    if found.values is not None:
        for run, value in zip(found.runs, found.values, strict=True):
            yield f"value in run {run}", value
