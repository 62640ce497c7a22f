"""Environment variables that child processes read, and libraries on their first use.

PYTHONHASHSEED has no effect on the running interpreter, which reads it only at its start.
"""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

from ..support.interrupts import in_one_step
from .allowed import is_text
from .base import Setting

INDUCTOR_VARIABLE = "TORCHINDUCTOR_DETERMINISTIC"

# Looked up now: a program may later put another mapping in place of os.environ, and then
# neither the process nor its children see what is written there.
_environ = os.environ
_encode_name: Any = getattr(_environ, "encodekey", os.fsencode)
_encode: Any = getattr(_environ, "encodevalue", os.fsencode)
_decode: Any = getattr(_environ, "decodevalue", os.fsdecode)
# The dictionary inside, by encoded name. A lookup of an absent name takes 0.06 us here, and
# 0.9 us through the public mapping, which raises and catches inside.
_data: dict[Any, Any] | None = getattr(_environ, "_data", None)


def read_variable(name: str, data: dict[Any, Any] | None = _data) -> str | None:
    """Return the value, or None if the variable is not set; an empty value is a value."""
    if data is None:
        return _environ.get(name)
    value = data.get(_encoded(name))
    return None if value is None else _decode(value)


@cache
def _encoded(name: str) -> Any:
    return _encode_name(name)


def write_variable(name: str, value: str | None, data: dict[Any, Any] | None = _data) -> None:
    """Set the variable, or unset it if `value` is None.

    `os.environ[name] = value` changes the process first and its dictionary second. An
    interrupt between the two would leave a change that os.environ does not show.
    """
    if data is None:
        if value is None:
            _environ.pop(name, None)
        else:
            _environ[name] = value
        return
    key = _encoded(name)
    if value is None:
        in_one_step(partial(os.unsetenv, key), partial(data.pop, key, None))
    else:
        encoded = _encode(value)
        in_one_step(partial(os.putenv, key, encoded), partial(data.__setitem__, key, encoded))


def _is_hash_seed(value: Any) -> bool:
    """Return whether Python would start with the value."""
    if value is None:
        return True
    if type(value) is not str or len(value) > 20:
        return False
    is_number = value.isascii() and value.isdecimal()
    return value in ("", "random") or (is_number and int(value) < 2**32)


SETTINGS = [
    Setting(name, partial(read_variable, name), partial(write_variable, name), is_allowed)
    for name, is_allowed in (
        ("PYTHONHASHSEED", _is_hash_seed),
        ("CUBLAS_WORKSPACE_CONFIG", is_text),
        (INDUCTOR_VARIABLE, is_text),
    )
]
