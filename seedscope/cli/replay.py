"""`seedscope replay`."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_options, command
from .log import open_log
from .messages import Unusable


def add(commands: Any) -> None:
    parser = command(
        commands,
        "replay",
        _execute,
        says_warnings=True,
        help="run a logged run again, and compare the values",
        description=(
            "Run the command of a logged run again, with the same seed, in the same folder.\n"
            "Print which conditions differ, and whether the noted values are equal, bit for\n"
            "bit. If a value differs, the exit code is 1."
        ),
        epilog="example: seedscope replay 3f2a",
    )
    parser.add_argument("id", help="run id, or a unique prefix")
    add_options(parser, "log")


def _execute(options: argparse.Namespace) -> int:
    from ..replay import ReplayError, replay

    log = open_log(options.log)
    try:
        run = log.find(options.id)
    except (LookupError, OSError, ValueError) as error:
        raise Unusable(f"{error.args[-1]}; seedscope log lists the runs") from error
    try:
        return 0 if replay(log, run) else 1
    except ReplayError as error:
        raise Unusable(f"{run.id} cannot be replayed: {error}") from error
    except KeyboardInterrupt:
        return 130
