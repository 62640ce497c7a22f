"""`seedscope log`: which runs of a log are shown, in which order, and how."""

from __future__ import annotations

import csv
import json
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from .runs.run import Run
from .runs.values import encode
from .support.optional_imports import import_extra

#: A field or note, a sign, and a value, as `--where` takes them.
Condition = tuple[str, str, str]


class ViewError(Exception):
    """There is nothing like what was asked for; one line says what there is."""


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


def select(runs: list[Run], conditions: list[Condition], replays: bool) -> list[Run]:
    """Return the runs of which every condition holds.

    Other ranks than the first, and replays, are left out unless a condition names them.
    """
    names = {name for name, _, _ in conditions}
    runs = [run for run in runs if "rank" in names or not run.rank]
    runs = [run for run in runs if replays or "replays" in names or not run.replays]
    for name, sign, value in conditions:
        if runs and not any(_has(run, name) for run in runs):
            raise ViewError(f"no run has a field or note {name!r}; noted were: {_noted(runs)}")
        runs = [run for run in runs if _holds(_field(run, name), sign, value)]
    return runs


def plain(run: Run) -> dict[str, Any]:
    """Return all that is known of a run, in JSON's types."""
    return {**vars(run), "notes": {n: encode(v, n) for n, v in run.notes.items()}}


def _field(run: Run, name: str) -> Any:
    """A field, the commit, a version, or a note, by its name; None where there is none."""
    if name.startswith("notes."):
        return run.notes.get(name.removeprefix("notes."))
    if name == "commit":
        return (run.git or {}).get("commit")
    found = vars(run).get(name)
    return run.versions.get(name, run.notes.get(name)) if found is None else found


def _has(run: Run, name: str) -> bool:
    known = {*vars(run), *vars(type(run)), "commit", *run.versions}
    return name in known or name.removeprefix("notes.") in run.notes


def _holds(value: Any, sign: str, text: str) -> bool:
    wanted: Any = text
    if isinstance(value, str):
        if sign in ("=", "==") and len(text) >= 4 and re.fullmatch("[0-9a-f]+", value):
            return value.startswith(text)  # an id or a commit, or as much of it as is needed
    else:
        with suppress(ValueError):  # a string, for what is no string: it does not hold
            wanted = json.loads(text)
    try:
        return value is not None and bool(_COMPARISONS[sign](value, wanted))
    except (TypeError, RuntimeError, ValueError):  # a string and a number, a tensor of several
        return False


def best_first(runs: list[Run], text: str) -> list[Run]:
    """Return the runs that noted a number, by it: `text` is NOTE, NOTE:min or NOTE:max."""
    name, _, sense = text.partition(":")
    if sense not in ("", "min", "max"):
        raise ViewError(f"--best takes NOTE, NOTE:min or NOTE:max, got {text!r}")
    values = {}
    for run in runs:
        try:
            value = float(run.notes[name])
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
            continue
        if value == value:
            values[run.id] = value
    if not values:
        raise ViewError(f"no run noted a number {name!r}; noted were: {_noted(runs)}")
    sign = -1 if sense == "max" else 1
    ranked = [run for run in runs if run.id in values]
    return sorted(ranked, key=lambda run: sign * values[run.id])


def _noted(runs: Iterable[Run]) -> str:
    return ", ".join(sorted(_note_names(runs))) or "nothing"


def _note_names(runs: Iterable[Run]) -> list[str]:
    return [*{name: None for run in runs for name in run.notes}]


_FIELDS = ("id", "began", "seed", "outcome", "duration", "commit", "sweep", "replays")


def _column(note: str) -> str:
    """The heading of a note's column: its name, unless that of a field."""
    return f"notes.{note}" if note in (*_FIELDS, "time", "command") else note


def write_csv(runs: list[Run]) -> None:
    """Print the runs as comma-separated values, a column for each note."""
    notes = _note_names(runs)
    writer = csv.writer(sys.stdout)
    writer.writerow([*_FIELDS, *(_column(name) for name in notes)])
    for run in runs:
        row = [_field(run, name) for name in _FIELDS]
        writer.writerow([*row, *(shown(run.notes.get(name, "")) for name in notes)])


def shown(value: Any) -> str:
    """Return a noted value as a table has it."""
    return str(value.item()) if getattr(value, "ndim", None) == 0 else str(value)


def show(runs: list[Run], path: str, best: str | None) -> None:
    """Print a table that fits the terminal: ids and the note of `best` are never cut."""
    # In a pipe as wide as it needs to be.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 10_000
    console = import_extra("rich.console", "The table").Console(highlight=False, width=width)
    text = import_extra("rich.text", "The table").Text
    table = import_extra("rich.table", "The table").Table(
        title=f" {len(runs)} {'run' if len(runs) == 1 else 'runs'} of {path}",
        title_justify="left",
        box=import_extra("rich.box", "The table").SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    columns = {
        "id": [run.id[:8] for run in runs],
        "began": [_when(run) for run in runs],
        "seed": [str(run.seed) for run in runs],
    }
    times = [_lasted(run.duration) for run in runs]
    # What an outcome and a command need at the least, and each column's edge.
    left = console.width - sum(max([4, *map(len, x)]) + 3 for x in (*columns.values(), times)) - 16
    hidden = []
    first = (best or "").partition(":")[0]
    for name in sorted(_note_names(runs), key=lambda name: name != first):
        cells = [_brief(run.notes[name]) if name in run.notes else "" for run in runs]
        left -= max(map(len, (_column(name), *cells))) + 3
        if left < 0 and name != first:
            hidden.append(name)
        else:
            columns[_column(name)] = cells
    columns["time"] = times
    for name in columns:
        table.add_column(name, justify="left" if name in ("id", "began") else "right", no_wrap=True)
    for name in ("outcome", "command"):  # these two give way on a narrow terminal
        table.add_column(name, min_width=2)
    for run, *cells in zip(runs, *columns.values(), strict=True):
        style = "" if run.outcome == "ok" else "yellow"
        what = re.sub("^(seedscope run|python[0-9.]*) ", "", run.what())  # room is scarce
        what = f"(replays {run.replays[:8]}) {what}" if run.replays else what
        table.add_row(
            *map(text, cells),
            text(run.outcome or "not ended", style, no_wrap=True, overflow="ellipsis"),
            text(what, no_wrap=True, overflow="ellipsis"),
        )
    console.print(table)
    if hidden:
        console.print(f" noted too, and in --json and --csv: {', '.join(hidden)}", style="dim")


def _when(run: Run) -> str:
    return datetime.fromisoformat(run.began).astimezone().strftime("%m-%d %H:%M")


def _lasted(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


def _brief(value: Any) -> str:
    text = shown(value)
    try:
        return f"{float(text):.6g}"
    except ValueError:
        text = text.replace("\n", " ")
        return text if len(text) <= 16 else f"{text[:15]}…"
