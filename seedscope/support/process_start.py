"""The environment variables that a reproducible Python process needs; imports no torch."""

from __future__ import annotations

import os
import re
from functools import cache

#: Makes a child of the process PID replay the seeds of a logged process: `PID:PROCESS:LOG`,
#: joined by `os.pathsep`. PROCESS is the logged process's id, LOG the path of the log.
REPLAY_VARIABLE = "SEEDSCOPE_REPLAY"


def current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # the folder was removed
        return ""


#: The number of hash seeds that scopes give to child processes. The C library keeps each
#: distinct string of the environment for ever, 80 bytes for each seed of a long run.
HASH_SEEDS = 4096

#: The folder in which the process was started, unless the program left it before this import.
START_FOLDER = current_folder()


def variables(seed: int, cublas_workspace: str | None, torch_version: str) -> dict[str, str]:
    """Return the variables to set; `cublas_workspace` is the present CUBLAS_WORKSPACE_CONFIG."""
    # The interpreter refuses to start with a hash seed of more than 32 bits.
    values = {"PYTHONHASHSEED": str(seed % 2**32)}
    if _asks_for_workspace(torch_version) and cublas_workspace not in (":4096:8", ":16:8"):
        values["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return values


@cache
def _asks_for_workspace(torch_version: str) -> bool:
    """Return whether torch refuses deterministic matrix products without the variable.

    Since 2.11, torch allocates a workspace for each handle and stream, which makes cuBLAS
    reproducible: https://docs.nvidia.com/cuda/cublas/#results-reproducibility. There the
    variable does harm: torch 2.11 and 2.12 parse it for each product, and since 2.13 the
    first product of a process fixes the workspace's size, even after the block ends.
    """
    found = re.match(r"(\d+)\.(\d+)", torch_version)
    return found is None or (int(found[1]), int(found[2])) < (2, 11)
