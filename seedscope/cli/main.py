"""The `seedscope` command. Each command imports what it needs.

torch takes its time, and so does the rest: process pools take as long as Python's own start.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from . import cost, demo, info, log, replay, run, sweep
from .messages import Unusable, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the process's own, and return the exit code.

    0: done. 1: the answer is no (the demo: a promise was broken; replay: not the same;
    sweep: every seed failed). 2: it could not run. 130: stopped with Ctrl-C.
    `seedscope run` ends as the script does.
    """
    arguments = sys.argv[1:] if arguments is None else [*arguments]
    options = _parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
    if options.is_program:
        return int(options.execute(options))  # nothing of the program's is caught here
    from .remarks import said

    with said(options.says_warnings):
        try:
            code = options.execute(options)
            sys.stdout.flush()  # here, where a pipe that was closed is no error
        except (Unusable, ImportError) as error:
            if isinstance(error, ImportError) and "seedscope[" not in str(error):
                raise
            say(str(error))
            return 2
        except BrokenPipeError:  # `seedscope log | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    return int(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seedscope",
        description="Scoped, complete, explained reproducibility for PyTorch.",
        epilog="example: seedscope demo --seed 7",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"seedscope {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (run, log, replay, sweep, cost, info, demo):
        command.add(commands)
    return parser
