"""Environment variables that child processes, and libraries on their first use, read.

PYTHONHASHSEED has no effect on the running interpreter: it is fixed at its start.
"""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

import torch

from ..children import variables
from .base import Setting

INDUCTOR_VARIABLE = "TORCHINDUCTOR_DETERMINISTIC"

# os.environ's own dictionary, by encoded name. Through the public mapping an absent
# name costs 0.9 us, since it raises and catches inside; through this 0.06.
_data: dict[Any, Any] | None = getattr(os.environ, "_data", None)


def read_variable(name: str, data: dict[Any, Any] | None = _data) -> str | None:
    """The value, or None where the variable is not set; set but empty is another state."""
    if data is None:
        return os.environ.get(name)
    value = data.get(_encoded(name))
    return None if value is None else os.environ.decodevalue(value)


@cache
def _encoded(name: str) -> Any:
    return os.environ.encodekey(name)


def _write(name: str, value: str | None) -> None:
    if value is None:
        del os.environ[name]
    else:
        os.environ[name] = value


SETTINGS = [
    Setting(name, partial(read_variable, name), partial(_write, name))
    for name in ("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", INDUCTOR_VARIABLE)
]


def values_for_children(seed: int) -> dict[str, Any]:
    return variables(seed, read_variable("CUBLAS_WORKSPACE_CONFIG"), torch.__version__)
