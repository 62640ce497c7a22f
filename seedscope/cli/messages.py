"""What a command says."""

from __future__ import annotations

import sys
from typing import Any


class Unusable(Exception):
    """What was asked for cannot be done; the message is one line."""


def say(text: str) -> None:
    """Say it in a line of its own, on standard error."""
    from .remarks import LOGGER

    LOGGER.info("%s", text)


def print_json(value: Any) -> None:
    import json

    json.dump(value, sys.stdout, indent=1)
    print()
