"""A progress bar with the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..support.optional_imports import import_extra
from ..support.remarks import is_terminal, remark


@contextmanager
def progress_bar(name: str, total: int, done: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """Show a bar with the time left on a terminal; yield a function that counts a seed as done."""
    if not (wanted and is_terminal(sys.stderr) and total > done):
        yield lambda: None
        return
    try:
        rich = import_extra("rich.progress", "The progress bar")
        console = import_extra("rich.console", "The progress bar").Console(stderr=True)
    except ImportError as error:
        remark(str(error))
        yield lambda: None
        return
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
    )
    # No thread that refreshes the bar: executors may fork.
    with rich.Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task(name, total=total, completed=done)
        bar.refresh()

        def tick() -> None:
            bar.update(task, advance=1, refresh=True)

        yield tick
