"""What of this machine and process bears on the bits of a result: versions, devices, code."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .process_start import current_folder
from .torch_internals import cudnn_version

_GIT_PATIENCE_S = 10


def versions() -> dict[str, str | None]:
    """Return the versions of Python, NumPy, torch, CUDA (or ROCm) and cuDNN; None: not there."""
    cuda = torch.version.cuda or torch.version.hip
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "cuda": cuda,
        "cudnn": cudnn_version() if cuda else None,
    }


def devices() -> list[str]:
    """Return the names of the CPU and of each GPU, if the process has started any.

    A GPU that was not started had no part in a result, and asking for its name would
    start it.
    """
    names = [cpu_name()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        names += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return names


@cache
def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main_file() -> str | None:
    """Return the path of the file that the process runs, None in an interactive one."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(file) if file and os.path.exists(file) else None


def code_state(file: str | None) -> dict[str, Any]:
    """Return what tells one state of the code in `file` from another.

    `script_sha256` is the file's digest, and `git` the commit it belongs to and whether
    tracked files differ from it. Each is None where there is no such thing.
    """
    folder = os.path.dirname(os.path.abspath(file)) if file else current_folder()
    commit = _git(folder, "rev-parse", "HEAD")
    changed = commit and _git(folder, "status", "--porcelain", "--untracked-files=no")
    try:
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    except OSError:
        digest = None
    return {
        "script_sha256": digest,
        # The state is unknown (None) where git did not answer in time.
        "git": commit and {"commit": commit, "dirty": None if changed is None else bool(changed)},
    }


def _git(folder: str, *arguments: str) -> str | None:
    """What git says in `folder`; None where there is no git, no repository or no answer."""
    # Without the optional locks a `status` does not get into the way of the user's own git.
    command = ["git", "--no-optional-locks", "-C", folder, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_PATIENCE_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
