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
        help="train a small network bare and seeded, and compare",
        description=(
            "Train a small network on scikit-learn's handwritten digits, twice bare and\n"
            "twice inside seeded(SEED). Show which runs repeat, and which generators and\n"
            "settings stay changed. The demo takes less than a minute and downloads nothing.\n"
            "If the seeded runs differ, or leave something changed outside, the exit code\n"
            "is 1."
        ),
        epilog="example: seedscope demo --seed 7",
    )
    parser.add_argument(
        "--seed", type=seed, default=1029, help="seed of seeded() (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=positive, default=10, help="epochs of each run (default: %(default)s)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto (default): cuda if there is a CUDA device, else cpu",
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
        return 130  # the exit code that a shell reports after Ctrl-C
