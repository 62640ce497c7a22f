"""The environment variables of a Python process that is to repeat; needs no torch."""

from __future__ import annotations

import os

#: Asks a process, by its parent's pid, to take the seeds of the runs of a logged process:
#: `PID:PROCESS:PATH_OF_THE_LOG`.
REPLAY_VARIABLE = "SEEDSCOPE_REPLAY"


def current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


#: Where the process was started, as far as can be told: a program may change it later.
START_FOLDER = current_folder()


def variables(seed: int, cublas_workspace: str | None) -> dict[str, str]:
    """Return what to set, where CUBLAS_WORKSPACE_CONFIG is `cublas_workspace` so far."""
    # An interpreter refuses to start with more than 32 bits.
    values = {"PYTHONHASHSEED": str(seed % 2**32)}
    if cublas_workspace not in (":4096:8", ":16:8"):
        values["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return values
