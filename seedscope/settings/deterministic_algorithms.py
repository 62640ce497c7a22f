"""torch's deterministic algorithms, the filling of empty tensors, and inductor's own flag."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import Any

import torch

from .base import Setting
from .environment import INDUCTOR_VARIABLE, read_variable

# The debug mode is the public way to set the pair (enabled, warn_only) that leaves
# inductor alone: use_deterministic_algorithms() imports it (1.7 s) and sets its flag.
WARN, ERROR = 1, 2

_INDUCTOR = "torch._inductor.config"


def _read_inductor() -> Any:
    """Inductor's own flag, or what it will start with where inductor is not loaded."""
    config = sys.modules.get(_INDUCTOR)
    # Asked for once: each look at this configuration takes 1.4 us. Torch 2.9 brought the flag.
    flag = None if config is None else getattr(config, "deterministic", None)
    return read_variable(INDUCTOR_VARIABLE) == "1" if flag is None else flag


def _write_inductor(value: bool) -> None:
    config: Any = sys.modules.get(_INDUCTOR)
    if config is not None:
        with contextlib.suppress(AttributeError):  # before torch 2.9 it refuses the name
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
