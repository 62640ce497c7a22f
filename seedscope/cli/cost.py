"""`seedscope cost`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any

from ..support.remarks import write_error
from .arguments import command
from .messages import Unusable, show, show_json


def add(commands: Any) -> None:
    parser = command(
        commands,
        "cost",
        _execute,
        help="time a training step under each determinism setting",
        description=(
            "Time a training step under each determinism setting, in fresh processes, and\n"
            "compare the results from one seed, bit for bit. FUNCTION builds a model, and\n"
            "returns a function that takes one training step and returns the model. The last\n"
            "line names the cheapest setting that repeats. If no setting repeats, the exit\n"
            "code is 1."
        ),
        epilog="example: seedscope cost train:make_step",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION")
    parser.add_argument(
        "--quick", action="store_true", help="measure for less time, with wider intervals"
    )
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")


def _execute(options: argparse.Namespace) -> int:
    from ..costs.cost import cost
    from ..support.user_function import load_function

    try:
        with redirect_stdout(sys.stderr):  # the file's own output must not mix with the JSON
            function = load_function(options.function)
    except LookupError as error:
        raise Unusable(str(error)) from error
    try:
        found = cost(function, quick=options.quick)
    except TypeError as error:
        raise Unusable(str(error)) from error
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the step's own, with the traceback of its process
        write_error(str(error.__cause__ or ""))
        raise Unusable(f"{options.function} failed: {type(error).__name__}: {error}") from error
    if options.json:
        show_json(found.as_dict())
    else:
        show(str(found))
    return 0 if found.cheapest is not None else 1
