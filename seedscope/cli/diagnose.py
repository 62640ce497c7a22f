"""`seedscope diagnose`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any

from .arguments import command, integer_from, seed
from .messages import Unusable, show, show_json


def add(commands: Any) -> None:
    parser = command(
        commands,
        "diagnose",
        _execute,
        help="name the first operation that differs between runs of one seed, and why",
        description=(
            "Run a function several times from one seed, compare every operation of torch bit\n"
            "for bit, and name the first one that differs, where it was called, and why.\n"
            "FUNCTION takes no arguments. If runs differ, or one raises, the exit code is 1."
        ),
        epilog="example: seedscope diagnose train:step --seed 1029",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION")
    parser.add_argument(
        "--seed", metavar="N", type=seed, default=1029, help="the seed (default: %(default)s)"
    )
    parser.add_argument(
        "--runs",
        metavar="N",
        type=integer_from(2, "an integer from 2 on"),
        default=2,
        help="runs to compare (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def _execute(options: argparse.Namespace) -> int:
    from ..diagnosis.diagnose import diagnose
    from ..support.user_function import load_function

    try:
        with redirect_stdout(sys.stderr):  # the file's own output must not mix with the JSON
            function = load_function(options.function)
            report = diagnose(function, seed=options.seed, runs=options.runs)
    except (LookupError, TypeError) as error:
        raise Unusable(str(error)) from error
    except KeyboardInterrupt:
        return 130
    if options.json:
        show_json(report.as_dict())
    else:
        show(str(report))
    return 0 if report.reproducible else 1
