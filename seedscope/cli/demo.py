"""`seedscope demo`."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import command, positive, seed
from .messages import Unusable


def add(commands: Any) -> None:
    parser = command(
        commands,
        "demo",
        _execute,
        help="train a small network four times, bare and seeded, and compare",
        description=(
            "Train a small network on scikit-learn's handwritten digits, twice as it is and twice\n"
            "inside seeded(SEED), and show what repeats and what is left changed. Takes less than\n"
            "a minute and downloads nothing. The exit code is 1 if the seeded runs differ or left\n"
            "something changed outside."
        ),
        epilog="example: seedscope demo --seed 7",
    )
    parser.add_argument("--seed", type=seed, default=1029, help="default: %(default)s")
    parser.add_argument(
        "--epochs", type=positive, default=10, help="of each run, default: %(default)s"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: auto, that is cuda where there is one",
    )


def _execute(options: argparse.Namespace) -> int:
    from ..support.optional_imports import import_extra

    for module in ("rich", "sklearn"):
        import_extra(module, "The demo", "demo")
    from .. import demo

    try:
        device = demo.choose_device(options.device)
    except ValueError as error:
        raise Unusable(str(error)) from error
    try:
        return demo.main(options.seed, options.epochs, device)
    except KeyboardInterrupt:
        return 130  # what a shell reports after Ctrl-C
