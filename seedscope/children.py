"""The environment variables of a Python process that is to repeat; needs no torch."""

from __future__ import annotations

#: Asks a process to take the seeds of the runs of a logged one: `PROCESS:PATH_OF_THE_LOG`.
REPLAY_VARIABLE = "SEEDSCOPE_REPLAY"


def variables(seed: int, cublas_workspace: str | None) -> dict[str, str]:
    """Return what to set, where CUBLAS_WORKSPACE_CONFIG is `cublas_workspace` so far."""
    # An interpreter refuses to start with more than 32 bits.
    values = {"PYTHONHASHSEED": str(seed % 2**32)}
    if cublas_workspace not in (":4096:8", ":16:8"):
        values["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return values
