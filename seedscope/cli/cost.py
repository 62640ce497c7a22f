"""`seedscope cost`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any

from .arguments import command
from .messages import Unusable, print_json


def add(commands: Any) -> None:
    parser = command(
        commands,
        "cost",
        _execute,
        help="what each determinism setting costs a step of yours, and which repeat",
        description=(
            "Call FUNCTION, which builds a model and returns a function that takes one training\n"
            "step and returns the model, under each setting, in fresh processes: time the steps,\n"
            "and compare what they give from one seed, bit for bit. Prints the cheapest setting\n"
            "that repeats; if none does, the exit code is 1."
        ),
        epilog="example: seedscope cost train:make_step",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION")
    parser.add_argument("--quick", action="store_true", help="a look, with wider intervals")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _execute(options: argparse.Namespace) -> int:
    from ..costs.cost import cost
    from ..support.user_function import load_function

    try:
        with redirect_stdout(sys.stderr):  # what the file prints is no JSON
            function = load_function(options.function)
    except LookupError as error:
        raise Unusable(str(error)) from error
    try:
        found = cost(function, quick=options.quick)
    except TypeError as error:
        raise Unusable(str(error)) from error
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the step's own, with the traceback of the process it was in
        print(error.__cause__ or "", file=sys.stderr)
        raise Unusable(f"{options.function} failed: {type(error).__name__}: {error}") from error
    if options.json:
        print_json(found.as_dict())
    else:
        print(found)
    return 0 if found.cheapest is not None else 1
