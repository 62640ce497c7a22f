"""`seedscope log`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from .arguments import add_options, add_shapes, command, condition
from .messages import Unusable, say, show_json

if TYPE_CHECKING:
    from ..runs.log import RunLog
    from ..runs.run import Run


def add(commands: Any) -> None:
    parser = command(
        commands,
        "log",
        _execute,
        says_warnings=True,
        help="show the logged runs",
        description=(
            "Show the runs of a log that have ended, the newest first. Of a run on several\n"
            "ranks, show only rank 0, unless --where names a rank."
        ),
        epilog="examples:\n  seedscope log --best loss --where 'epoch>=3'\n"
        "  seedscope log --best accuracy:max --json",
    )
    add_options(parser, "log")
    parser.add_argument(
        "--best",
        metavar="NOTE[:max]",
        help="only runs with this note, the smallest (or largest) value first",
    )
    parser.add_argument(
        "--where",
        metavar="NAME<VALUE",
        action="append",
        type=condition,
        default=[],
        help="only runs that meet the condition (< <= = != >= >). NAME is a field, such as "
        "outcome, or a note; notes.NAME is the note if a field has the same name",
    )
    parser.add_argument("--replays", action="store_true", help="show replays of other runs too")
    parser.add_argument(
        "--unfinished", action="store_true", help="show the runs that have begun and not ended"
    )
    add_shapes(parser, "all fields and notes, as a JSON array")


def _execute(options: argparse.Namespace) -> int:
    from ..runs import query
    from . import log_table

    log = open_log(options.log)
    try:
        runs = query.select(_runs(log, options.unfinished), options.where, options.replays)
        if options.best and runs:
            runs = query.best_first(runs, options.best)
    except query.ViewError as error:
        raise Unusable(str(error)) from error
    if reseeded := [run for run in runs if run.reseeded]:
        names = sorted({name for run in reseeded for name in run.reseeded})
        say(
            f"code in {len(reseeded)} of {len(runs)} runs has called a function that seeds "
            f"{', '.join(names)}, with another seed than the run's: the result may not follow the "
            "run's seed; --where 'reseeded!={}' shows these runs"
        )
    if options.json:
        show_json([query.plain(run) for run in runs])
    elif options.csv:
        log_table.show_csv(runs)
    else:
        log_table.show_table(runs, options.log, options.best)
        if not options.unfinished and (count := len(_runs(log, unfinished=True))):
            say(f"runs that have not ended: {count}; --unfinished shows them")
    return 0


def open_log(path: str) -> RunLog:
    if not os.path.exists(path):
        raise Unusable(f"there is no log at {path}: name another log with --log PATH")
    from ..runs.log import RunLog

    return RunLog(path)


def _runs(log: RunLog, unfinished: bool = False) -> list[Run]:
    try:
        runs = log.unfinished() if unfinished else [*log]
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot read the log: {error}") from error
    return sorted(runs, key=lambda run: run.began, reverse=True)
