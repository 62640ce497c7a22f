"""`seedscope replay`."""

from __future__ import annotations

import argparse
from typing import Any

from ..support.visible import shell
from .arguments import add_options, command
from .log import open_log
from .messages import Unusable, ask, can_ask, say


def add(commands: Any) -> None:
    parser = command(
        commands,
        "replay",
        _execute,
        says_warnings=True,
        help="run a logged run again, and compare the values",
        description=(
            "Run the command of a logged run again, with the same seed, in the same folder.\n"
            "The command is shown, and a terminal is asked first: a log can come from anyone.\n"
            "Print which conditions differ, and whether the noted values are equal, bit for\n"
            "bit. If a value differs, the exit code is 1."
        ),
        epilog="example: seedscope replay 3f2a",
    )
    parser.add_argument("id", help="run id, or a unique prefix")
    parser.add_argument(
        "--yes", action="store_true", help="run without a question, also without a terminal"
    )
    add_options(parser, "log")


def _execute(options: argparse.Namespace) -> int:
    from ..replay import ReplayError, check, replay, what_runs

    log = open_log(options.log)
    try:
        run = log.find(options.id)
    except LookupError as error:
        hint = f"seedscope log --log {shell([options.log])} lists the runs"
        raise Unusable(f"{error.args[-1]}; {hint}") from error
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot read the log {options.log}: {error}") from error
    try:
        check(run)
        for line in what_runs(run):
            say(line)
        _agree(options.yes)
        return 0 if replay(log, run) else 1
    except ReplayError as error:
        raise Unusable(f"{run.id} cannot be replayed: {error}") from error
    except KeyboardInterrupt:
        return 130


def _agree(yes: bool) -> None:
    """Ask whether to run what was shown: what a log says of itself proves nothing."""
    if yes:
        return
    if not can_ask():
        raise Unusable("nothing was run: without a terminal to ask, replay needs --yes")
    if not ask("run it?"):
        raise Unusable("nothing was run")
