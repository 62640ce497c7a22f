"""The `seedscope` command line.

Each command imports only the modules that it needs: torch loads slowly, and process pools take
as long as the start of Python.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from . import cost, demo, diagnose, info, log, replay, run, sweep
from .messages import Unusable, said, say, show


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process, and return the exit code.

    0: done. 1: the answer is no (demo: a promise was broken; replay: a value differs; sweep:
    every seed failed, or a process died; cost: no setting repeats;
    diagnose: runs differ). 2: the command could not
    run. 130: Ctrl-C stopped the command. `seedscope run` ends as its script ends.
    """
    arguments = sys.argv[1:] if arguments is None else [*arguments]
    options = _parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
    if options.is_program:
        return int(options.execute(options))  # the program's exceptions must not be caught below
    with said(options.says_warnings):
        try:
            code = options.execute(options)
            show("", end="")  # what the user's function has printed
        except (Unusable, ImportError) as error:
            if isinstance(error, ImportError) and "seedscope[" not in str(error):
                raise
            say(str(error))
            return 2
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
    for command in (run, log, replay, sweep, diagnose, cost, info, demo):
        command.add(commands)
    return parser
