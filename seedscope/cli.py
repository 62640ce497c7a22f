"""The `seedscope` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .seeds import check_seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the process's own, and return the exit code.

    0: done. 1: the answer is no (the demo: a promise was broken). 2: it could not run.
    130: stopped with Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="seedscope",
        description="Scoped, complete, explained reproducibility for PyTorch.",
        epilog="example: seedscope demo --seed 7",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="train a small network four times, bare and seeded, and compare",
        description=(
            "Train a small network on scikit-learn's handwritten digits, twice as it is and "
            "twice inside seeded(SEED), and show what repeats and what is left changed. Takes "
            "less than a minute and downloads nothing. The exit code is 1 if the seeded runs "
            "differ or left something changed outside."
        ),
        epilog="example: seedscope demo --seed 7",
    )
    parser.add_argument("--seed", type=_seed, default=1029, help="default: %(default)s")
    parser.add_argument(
        "--epochs", type=_positive, default=10, help="of each run, default: %(default)s"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: auto, that is cuda where there is one",
    )
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    try:
        from . import demo
    except ModuleNotFoundError as error:
        missing = {"rich": "rich", "sklearn": "scikit-learn"}.get((error.name or "").split(".")[0])
        if missing is None:
            raise
        print(f'The demo needs {missing}: pip install "seedscope[demo]"', file=sys.stderr)
        return 2
    try:
        device = demo.choose_device(options.device)
    except ValueError as error:
        print(f"seedscope demo: {error}", file=sys.stderr)
        return 2
    try:
        return demo.main(options.seed, options.epochs, device)
    except KeyboardInterrupt:
        return 130  # what a shell reports after Ctrl-C


def _seed(text: str) -> int:
    try:
        return check_seed(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return number
