"""The table and the CSV of `seedscope log`."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from datetime import datetime, timedelta
from typing import Any

from ..runs.query import field, note_names
from ..runs.run import Run
from ..support.optional_imports import import_extra
from ..support.remarks import is_terminal
from ..support.visible import visible
from .messages import show

_FIELDS = ("id", "began", "seed", "outcome", "duration", "commit", "sweep", "replays")


def _column(note: str) -> str:
    """Return the heading of a note's column: its name, or `notes.NAME` if a field has the name."""
    return f"notes.{note}" if note in (*_FIELDS, "time", "command") else note


def show_csv(runs: list[Run]) -> None:
    """Print the runs as comma-separated values, with a column for each note."""
    notes = note_names(runs)
    rows = [[*_FIELDS, *(_column(name) for name in notes)]]
    for run in runs:
        row = [field(run, name) for name in _FIELDS]
        rows.append([*row, *(shown(run.notes.get(name, "")) for name in notes)])
    show_rows(rows)


def show_rows(rows: list[list[Any]]) -> None:
    """Print comma-separated values, each row on one line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([["" if x is None else visible(str(x)) for x in row] for row in rows])
    show(text.getvalue(), end="")


def shown(value: Any) -> str:
    """Return the text of a noted value for a table."""
    return str(value.item()) if getattr(value, "ndim", None) == 0 else str(value)


def show_table(runs: list[Run], path: str, best: str | None) -> None:
    """Print a table that fits the terminal; ids and the note `best` are never cut."""
    # In a pipe, a table is as wide as needed.
    width = None if is_terminal(sys.stdout) or "COLUMNS" in os.environ else 10_000
    held = _Held()
    rich = import_extra("rich.console", "The table")
    console = rich.Console(file=held, highlight=False, width=width)
    columns, hidden = _columns(runs, console.width, (best or "").partition(":")[0])
    console.print(_table(runs, path, columns))
    if hidden:
        more = f" more notes, shown by --json and --csv: {', '.join(hidden)}"
        console.print(_text(more, "dim"))
    show(held.getvalue(), end="", is_styled=True)


class _Held(io.StringIO):
    """Holds a table for standard output, with its encoding and colours: `show` alone writes."""

    encoding = property(lambda self: getattr(sys.stdout, "encoding", None))

    def isatty(self) -> bool:
        return is_terminal(sys.stdout)


def _text(text: str, style: str = "", **options: Any) -> Any:
    """Return a text for rich that has no markup, and nothing that a terminal would obey."""
    return import_extra("rich.text", "The table").Text(visible(text), style, **options)


def _columns(runs: list[Run], width: int, first: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return the columns that are never cut, with note `first` first, and the notes left out."""
    columns = {
        "id": [run.id[:8] for run in runs],
        "began": [_when(run) for run in runs],
        "seed": [str(run.seed) for run in runs],
    }
    times = [_lasted(run.duration) for run in runs]
    # Minus the least width of outcome and command, and the edge of each column.
    left = width - sum(max([4, *map(len, x)]) + 3 for x in (*columns.values(), times)) - 16
    # Each note in each run would take a product in time: most cells of rare notes are empty.
    cells_left = 1_000 + 4 * sum(len(run.notes) for run in runs)
    hidden = []
    for name in sorted(note_names(runs), key=lambda name: name != first):
        cells_left -= len(runs)
        if min(left, cells_left) < 0 and name != first:
            hidden.append(name)
            continue
        cells = [_brief(run.notes[name]) if name in run.notes else "" for run in runs]
        left -= max(len(visible(text)) for text in (_column(name), *cells)) + 3
        if left < 0 and name != first:
            hidden.append(name)
        else:
            columns[_column(name)] = cells
    return columns | {"time": times}, hidden


def _table(runs: list[Run], path: str, columns: dict[str, list[str]]) -> Any:
    table = import_extra("rich.table", "The table").Table(
        title=_text(f" {len(runs)} {'run' if len(runs) == 1 else 'runs'} of {path}"),
        title_justify="left",
        box=import_extra("rich.box", "The table").SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    for name in columns:
        justify = "left" if name in ("id", "began") else "right"
        table.add_column(_text(name), justify=justify, no_wrap=True)
    for name in ("outcome", "command"):  # on a narrow terminal these two are cut
        table.add_column(name, min_width=2)
    for run, *cells in zip(runs, *columns.values(), strict=True):
        style = "" if run.outcome == "ok" else "yellow"
        what = re.sub("^(seedscope run|python[0-9.]*) ", "", run.what())  # to save room
        what = f"(replays {run.replays[:8]}) {what}" if run.replays else what
        table.add_row(
            *map(_text, cells),
            _text(run.outcome or "not ended", style, no_wrap=True, overflow="ellipsis"),
            _text(what, no_wrap=True, overflow="ellipsis"),
        )
    return table


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
