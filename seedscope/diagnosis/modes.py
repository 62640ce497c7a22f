"""Modes of the process that are no setting of a scope, and that a program may leave changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


class Mode(NamedTuple):
    """A mode: the call that reads it, as text, and how it is read and set."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _write_device(device: Any) -> None:
    # The CPU is the default that torch has without a setting, which costs each call a little.
    torch.set_default_device(None if torch.device(device).type == "cpu" else device)


MODES = [
    Mode("torch.is_grad_enabled()", torch.is_grad_enabled, torch.set_grad_enabled),
    Mode("torch.get_default_dtype()", torch.get_default_dtype, torch.set_default_dtype),
    Mode("torch.get_default_device()", torch.get_default_device, _write_device),
    Mode(
        "torch.is_anomaly_enabled()",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
    ),
    Mode("torch.get_num_threads()", torch.get_num_threads, torch.set_num_threads),
    Mode("np.geterr()", np.geterr, lambda value: np.seterr(**value)),
]


def read_modes() -> dict[str, Any]:
    return {mode.name: mode.read() for mode in MODES}


def write_modes(values: dict[str, Any]) -> None:
    """Set the modes that differ from these values."""
    for mode in MODES:
        if mode.read() != values[mode.name]:
            mode.write(values[mode.name])
