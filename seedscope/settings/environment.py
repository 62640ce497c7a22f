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

# The variables of the process, in bytes. A program may put another mapping in place of os.environ,
# also before this import, and then neither the process nor its children see what is written there.
_environ = os.environb
# The dictionary inside. A lookup of an absent name takes 0.06 us here, and 0.9 us through the
# public mapping, which raises and catches inside.
_data: dict[bytes, bytes] | None = getattr(_environ, "_data", None)

_encoded = cache(os.fsencode)


def read_variable(name: str, data: dict[bytes, bytes] | None = _data) -> str | None:
    """Return the value, or None if the variable is not set; an empty value is a value."""
    value = (_environ if data is None else data).get(_encoded(name))
    return None if value is None else os.fsdecode(value)


def write_variable(name: str, value: str | None, data: dict[bytes, bytes] | None = _data) -> None:
    """Set the variable, or unset it if `value` is None.

    `os.environ[name] = value` changes the process first and its dictionary second. An
    interrupt between the two would leave a change that os.environ does not show.
    """
    key = _encoded(name)
    if value is None:
        if data is None:
            _environ.pop(key, None)
        else:
            in_one_step(partial(os.unsetenv, key), partial(data.pop, key, None))
        return
    encoded = os.fsencode(value)
    if data is None:
        _environ[key] = encoded
    else:
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
