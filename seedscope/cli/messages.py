"""The messages and JSON output of the commands."""

from __future__ import annotations

import sys
from typing import Any


class Unusable(Exception):
    """The command cannot run with these arguments. The message is one line."""


def say(text: str) -> None:
    """Print `text` on standard error, as a line of its own."""
    from .remarks import LOGGER

    LOGGER.info("%s", text)


def print_json(value: Any) -> None:
    import json

    json.dump(value, sys.stdout, indent=1)
    print()
