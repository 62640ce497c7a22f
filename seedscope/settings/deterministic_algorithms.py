"""torch's deterministic algorithms, the filling of empty tensors, and inductor's own flag."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch

from .base import Setting
from .environment import INDUCTOR_VARIABLE, read_variable

# The debug mode is the public way to set the pair (enabled, warn_only) that leaves
# inductor alone: use_deterministic_algorithms() imports it (1.7 s) and sets its flag.
WARN, ERROR = 1, 2


def _inductor() -> Any:
    """Inductor's configuration where it is loaded and has the flag (torch 2.9 and newer)."""
    config = sys.modules.get("torch._inductor.config")
    return config if hasattr(config, "deterministic") else None


def _read_inductor() -> Any:
    """The flag, or what it will start with where inductor is not loaded."""
    config = _inductor()
    return read_variable(INDUCTOR_VARIABLE) == "1" if config is None else config.deterministic


def _write_inductor(value: bool) -> None:
    if (config := _inductor()) is not None:
        config.deterministic = value


SETTINGS = [
    Setting(
        "deterministic_algorithms",
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    Setting(
        "fill_uninitialized_memory",
        partial(getattr, torch.utils.deterministic, "fill_uninitialized_memory"),
        partial(setattr, torch.utils.deterministic, "fill_uninitialized_memory"),
    ),
    Setting("inductor.deterministic", _read_inductor, _write_inductor),
]
