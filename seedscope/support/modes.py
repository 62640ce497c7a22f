"""What `deterministic` takes; needs no torch, for the command line's help."""

from __future__ import annotations

from typing import Literal

Deterministic = bool | Literal["warn", "cudnn"]

#: By the name that the command line gives them.
MODES: dict[str, Deterministic] = {"true": True, "warn": "warn", "cudnn": "cudnn", "false": False}
