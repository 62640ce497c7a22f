"""`seedscope run`."""

from __future__ import annotations

import argparse
from typing import Any

from ..support.modes import MODES
from .arguments import add_options, command, seed
from .messages import say


def add(commands: Any) -> None:
    parser = command(
        commands,
        "run",
        _execute,
        is_program=True,
        usage="seedscope run [options] (SCRIPT | -m MODULE) [ARGUMENT ...]",
        help="run a script in a scope, and log the seed",
        description=(
            "Run a script or module as `python` does, inside a scope. Without --seed, the\n"
            "command draws, prints and logs a fresh seed. Before the interpreter starts, the\n"
            "command sets the hash seed and, for torch before 2.11, the cuBLAS workspace.\n"
            "Call note(loss=...) in the script to add values to the log."
        ),
        epilog="example: seedscope run --seed 7 train.py --lr 0.1",
    )
    parser.add_argument("--seed", type=seed, help="seed of the scope (default: a fresh seed)")
    add_options(parser, "deterministic", "log")
    parser.add_argument(
        "--no-fill",
        action="store_true",
        help="do not fill uninitialised memory: faster, and safe if the code reads none",
    )
    # The words after the module's name are in the remainder, as for a script.
    parser.add_argument("-m", dest="module", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _execute(options: argparse.Namespace) -> int:
    from ..launch.interpreter import LaunchError
    from ..launch.launch import launch

    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        say("run needs a script, or -m and a module: seedscope run train.py")
        return 2
    try:
        launch(
            words,
            is_module=options.module,
            seed=options.seed,
            deterministic=MODES[options.deterministic],
            fill_uninitialized_memory=False if options.no_fill else None,
            log=options.log,
            restart=["-m", "seedscope", *options.arguments],
        )
    except LaunchError as error:
        say(str(error))
        return 2
    return 0
