"""Optional libraries: imported on use, each installed by a named extra."""

from __future__ import annotations

import importlib
import random
from typing import Any

# By top-level module: the package to install, and the extra that contains it.
_EXTRAS = {
    "matplotlib": ("matplotlib", "plot"),
    "pandas": ("pandas", "plot"),
    "rich": ("rich", "cli"),
    "sklearn": ("scikit-learn", "demo"),
}


def import_extra(module: str, what: str, extra: str | None = None) -> Any:
    """Return `module`, an optional dependency.

    Args:
        module: the name of the module.
        what: the feature that needs the module, for the message.
        extra: the extra to name in the message; by default the one in `_EXTRAS`.

    Raises:
        ImportError: the module is not installed; the message is one line and names the extra.
    """
    state = random.getstate()  # importing rich draws from `random`
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = _EXTRAS.get((error.name or "").partition(".")[0])
        if missing is None:
            raise
        package, usual = missing
        message = f'{what} needs {package}: pip install "seedscope[{extra or usual}]"'
        raise ImportError(message, name=error.name) from None
    finally:
        random.setstate(state)
