"""The options that several commands share, and the types of option values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from ..support.modes import MODES

LOG = "runs.jsonl"


def command(
    commands: Any,
    name: str,
    execute: Callable[[argparse.Namespace], int],
    *,
    is_program: bool = False,
    says_warnings: bool = False,
    **texts: str,
) -> argparse.ArgumentParser:
    """Add a command and return its parser.

    Args:
        commands: the subparsers to add the command to.
        name: the name of the command.
        execute: the function that runs the command and returns the exit code.
        is_program: whether the command ends as the user's program ends.
        says_warnings: whether the command prints a warning, such as of a broken line in a log, as
            a message line of its own.
        texts: the help texts of the parser.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **texts,
    )
    parser.set_defaults(execute=execute, is_program=is_program, says_warnings=says_warnings)
    return parser


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the shared options in `names`."""
    if "log" in names:
        parser.add_argument(
            "--log",
            metavar="PATH",
            type=path,
            default=LOG,
            help="the run log (default: %(default)s)",
        )
    if "deterministic" in names:
        parser.add_argument(
            "--deterministic",
            choices=MODES,
            default="true",
            help="the deterministic= of seeded() (default: %(default)s)",
        )


def add_shapes(parser: argparse.ArgumentParser, json: str) -> None:
    """Add `--json`, which prints what `json` names, and `--csv`."""
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help=f"print {json}")
    shape.add_argument("--csv", action="store_true", help="print comma-separated values")


def path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must name a file, got an empty path")
    return text


def condition(text: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"\s*([^<>=!\s]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be like loss<0.2 or outcome=ok, got {text!r}")
    name, sign, value = match.groups()
    return name, sign, value


def seed_range(text: str) -> range:
    first, colon, end = text.partition(":")
    try:
        seeds = range(seed(first), int(end)) if colon else range(int(first))
    except (ValueError, argparse.ArgumentTypeError):
        seeds = range(0)
    if not seeds:
        raise argparse.ArgumentTypeError(f"must be N or FIRST:END, such as 0:100, got {text!r}")
    return seeds


def seed(text: str) -> int:
    from ..seeds import check_seed

    try:
        return check_seed(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def integer_from(least: int, what: str) -> Callable[[str], int]:
    """Return the type of an option that is an integer from `least`, above 0, on."""

    def integer(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = 0
        if number < least:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return number

    return integer


positive: Callable[[str], int] = integer_from(1, "a positive integer")
