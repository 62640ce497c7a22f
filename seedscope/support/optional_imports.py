"""Libraries that not every user needs: imported on use, each from an extra that has a name."""

from __future__ import annotations

import importlib
import random
from typing import Any

# By top-level module: what to install, and the extra that has it.
_EXTRAS = {
    "matplotlib": ("matplotlib", "plot"),
    "pandas": ("pandas", "plot"),
    "rich": ("rich", "cli"),
    "sklearn": ("scikit-learn", "demo"),
}


def import_extra(module: str, what: str, extra: str | None = None) -> Any:
    """Return `module`, which `what` needs, from its extra or the one named.

    Raises:
        ImportError: it is not installed; the message is one line and names the extra.
    """
    state = random.getstate()  # rich draws from it while it is imported
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
