"""The values of `deterministic`; imports no torch, so that the command's help is fast."""

from __future__ import annotations

from typing import Literal

Deterministic = bool | Literal["warn", "cudnn"]

#: The modes, by their names on the command line.
MODES: dict[str, Deterministic] = {"true": True, "warn": "warn", "cudnn": "cudnn", "false": False}
