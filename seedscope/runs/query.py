"""Which runs of a log are asked for, and in which order."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from .run import Run
from .values import encode

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
        runs = [run for run in runs if _holds(field(run, name), sign, value)]
    return runs


def plain(run: Run) -> dict[str, Any]:
    """Return all that is known of a run, in JSON's types."""
    return {**vars(run), "notes": {n: encode(v, n) for n, v in run.notes.items()}}


def field(run: Run, name: str) -> Any:
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
    return ", ".join(sorted(note_names(runs))) or "nothing"


def note_names(runs: Iterable[Run]) -> list[str]:
    return [*{name: None for run in runs for name in run.notes}]
