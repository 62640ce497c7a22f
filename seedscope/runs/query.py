"""Selection and ranking of the runs of a log."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from .run import Run
from .values import encode

#: A field or note, a comparison sign and a value, as in `--where`.
Condition = tuple[str, str, str]


_FIELDS = frozenset(Run.__annotations__)

_IDS = ("id", "commit", "process", "replays")


class ViewError(Exception):
    """No run matches the request; the message is one line and lists the choices."""


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
    """Return the runs that meet every condition.

    Ranks other than 0 are left out unless a condition names `rank`. Replays are left out
    unless `replays` is true or a condition names `replays`.

    Raises:
        ViewError: a condition names a field or note that no run has.
    """
    names = {name for name, _, _ in conditions}
    runs = [run for run in runs if "rank" in names or not run.rank]
    runs = [run for run in runs if replays or "replays" in names or not run.replays]
    for name, sign, value in conditions:
        if runs and not any(_has(run, name) for run in runs):
            raise ViewError(f"no run has a field or note {name!r}; the notes are: {_noted(runs)}")
        holds = _is_id if name in _IDS else _holds
        runs = [run for run in runs if holds(field(run, name), sign, value)]
    return runs


def plain(run: Run) -> dict[str, Any]:
    """Return all fields of a run, in JSON's types."""
    return {**vars(run), "notes": {n: encode(v, n) for n, v in run.notes.items()}}


def field(run: Run, name: str) -> Any:
    """Return a field, the commit, a version or a note by name, or None."""
    if name.startswith("notes."):
        return run.notes.get(name.removeprefix("notes."))
    if name == "commit":
        return (run.git or {}).get("commit")
    found = vars(run).get(name) if name in _FIELDS else None
    return run.versions.get(name, run.notes.get(name)) if found is None else found


def _has(run: Run, name: str) -> bool:
    return name in {*_FIELDS, "commit", *run.versions} or name.removeprefix("notes.") in run.notes


def _is_id(value: Any, sign: str, text: str) -> bool:
    """Return whether an id compares with `text`, a prefix of at least 4 digits or the whole id."""
    is_prefix = isinstance(value, str) and len(text) >= 4 and value.startswith(text)
    return _holds(value, sign, value if is_prefix else text)


def _holds(value: Any, sign: str, text: str) -> bool:
    wanted: Any = text
    if not isinstance(value, str):
        with suppress(ValueError):  # not JSON: a string equals no other type
            wanted = json.loads(text)
    is_array = hasattr(value, "ndim")
    if value is None or (is_array and len(value.reshape(-1)) != 1):
        return False
    try:
        return bool(_COMPARISONS[sign](value, wanted))
    except (TypeError, RuntimeError, ValueError, OverflowError):  # types that do not compare
        return False


def best_first(runs: list[Run], text: str) -> list[Run]:
    """Return the runs that have a numeric note, best first.

    Args:
        runs: the runs to rank.
        text: NOTE, NOTE:min or NOTE:max; the lowest number is best without `:max`.

    Raises:
        ViewError: `text` has another form, or no run has a number as that note.
    """
    name, _, sense = text.partition(":")
    if sense not in ("", "min", "max"):
        raise ViewError(f"--best takes NOTE, NOTE:min or NOTE:max, got {text!r}")
    values = {}
    for run in runs:
        try:
            note = run.notes[name]
            value = float(note.item() if hasattr(note, "ndim") else note)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
            continue
        if value == value:
            values[run.id] = value
    if not values:
        raise ViewError(f"no run has a number as note {name!r}; the notes are: {_noted(runs)}")
    sign = -1 if sense == "max" else 1
    ranked = [run for run in runs if run.id in values]
    return sorted(ranked, key=lambda run: sign * values[run.id])


def _noted(runs: Iterable[Run]) -> str:
    return ", ".join(sorted(note_names(runs))) or "none"


def note_names(runs: Iterable[Run]) -> list[str]:
    return [*{name: None for run in runs for name in run.notes}]
