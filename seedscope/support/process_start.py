"""The environment variables of a Python process that is to repeat; needs no torch."""

from __future__ import annotations

import os
import re
from functools import cache

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


def variables(seed: int, cublas_workspace: str | None, torch_version: str) -> dict[str, str]:
    """Return what to set, where CUBLAS_WORKSPACE_CONFIG is `cublas_workspace` so far."""
    # An interpreter refuses to start with more than 32 bits.
    values = {"PYTHONHASHSEED": str(seed % 2**32)}
    if _asks_for_workspace(torch_version) and cublas_workspace not in (":4096:8", ":16:8"):
        values["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return values


@cache
def _asks_for_workspace(torch_version: str) -> bool:
    """Whether this torch refuses to multiply deterministically without the variable.

    From 2.11 on each handle and stream has a workspace of torch's own, with which cuBLAS
    repeats: https://docs.nvidia.com/cuda/cublas/#results-reproducibility. There the variable
    would do harm: torch 2.11 and 2.12 parse it for each product, and from 2.13 on the
    first product of a process keeps the workspace's size, also when the block is over.
    """
    found = re.match(r"(\d+)\.(\d+)", torch_version)
    return found is None or (int(found[1]), int(found[2])) < (2, 11)
