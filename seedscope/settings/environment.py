"""Environment variables that child processes, and libraries on their first use, read.

PYTHONHASHSEED has no effect on the running interpreter: it is fixed at its start.
"""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

from ..support.interrupts import in_one_step
from .base import Setting

INDUCTOR_VARIABLE = "TORCHINDUCTOR_DETERMINISTIC"

# os.environ's own dictionary, by encoded name. Through the public mapping an absent
# name costs 0.9 us, since it raises and catches inside; through this 0.06.
_data: dict[Any, Any] | None = getattr(os.environ, "_data", None)
# As they are now: a test may put a plain dictionary in the place of os.environ.
_encode_name, _encode, _decode = (
    os.environ.encodekey,
    os.environ.encodevalue,
    os.environ.decodevalue,
)


def read_variable(name: str, data: dict[Any, Any] | None = _data) -> str | None:
    """The value, or None where the variable is not set; set but empty is another state."""
    if data is None:
        return os.environ.get(name)
    value = data.get(_encoded(name))
    return None if value is None else _decode(value)


@cache
def _encoded(name: str) -> Any:
    return _encode_name(name)


def write_variable(name: str, value: str | None, data: dict[Any, Any] | None = _data) -> None:
    """Set the variable, or unset it with None.

    `os.environ[name] = value` tells the process and then its own dictionary: an interrupt
    in between leaves a change that nobody sees any more.
    """
    if data is None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
        return
    key = _encoded(name)
    if value is None:
        in_one_step(partial(os.unsetenv, key), partial(data.pop, key, None))
    else:
        encoded = _encode(value)
        in_one_step(partial(os.putenv, key, encoded), partial(data.__setitem__, key, encoded))


SETTINGS = [
    Setting(name, partial(read_variable, name), partial(write_variable, name))
    for name in ("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", INDUCTOR_VARIABLE)
]
