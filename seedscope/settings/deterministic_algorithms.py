"""torch's deterministic algorithms, the filling of empty tensors, and inductor's flag."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import Any

import torch

from ..replacements.gate import GATE
from .allowed import is_flag, one_of
from .base import Setting
from .environment import INDUCTOR_VARIABLE, read_variable

# The debug mode is the public way to set (enabled, warn_only) without inductor:
# use_deterministic_algorithms() would import inductor (1.7 s) and set its flag.
OFF, WARN, ERROR = 0, 1, 2

_INDUCTOR = "torch._inductor.config"


# Not while another thread's proof of a replacement has switched torch to warnings for a moment,
# and will switch it back.


def _read_mode() -> int:
    return GATE.undisturbed(torch.get_deterministic_debug_mode)


def _write_mode(mode: int) -> None:
    GATE.undisturbed(torch.set_deterministic_debug_mode, mode)


def _read_inductor() -> Any:
    """Return inductor's flag, or its initial value if inductor is not loaded."""
    config = sys.modules.get(_INDUCTOR)
    # Read the flag once: each read takes 1.4 us. The flag exists since torch 2.9.
    flag = None if config is None else getattr(config, "deterministic", None)
    return read_variable(INDUCTOR_VARIABLE) == "1" if flag is None else flag


def _write_inductor(value: bool) -> None:
    config: Any = sys.modules.get(_INDUCTOR)
    if config is not None:
        with contextlib.suppress(AttributeError):  # before torch 2.9 the flag does not exist
            config.deterministic = value


SETTINGS = [
    Setting("deterministic_algorithms", _read_mode, _write_mode, one_of(OFF, WARN, ERROR)),
    Setting(
        "fill_uninitialized_memory",
        partial(getattr, torch.utils.deterministic, "fill_uninitialized_memory"),
        partial(setattr, torch.utils.deterministic, "fill_uninitialized_memory"),
        is_flag,
    ),
    Setting("inductor.deterministic", _read_inductor, _write_inductor, is_flag),
]
