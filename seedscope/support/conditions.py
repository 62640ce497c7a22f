"""The conditions that affect the bits of a result: versions, devices and code."""

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
    """Return the versions of Python, NumPy, torch, CUDA (or ROCm) and cuDNN.

    A version is None where the library is absent, and for cuDNN also where only a started
    GPU could tell it.
    """
    cuda = torch.version.cuda or torch.version.hip
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "cuda": cuda,
        "cudnn": cudnn_version() if cuda else None,
    }


def devices() -> list[str]:
    """Return the name of the CPU, and of each GPU if the process has initialised CUDA.

    GPUs that were not initialised cannot affect a result, and reading their names would
    initialise them.
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
    """Return the path of the main script, or None in an interactive process."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(file) if file and os.path.exists(file) else None


def code_state(file: str | None) -> dict[str, Any]:
    """Return a dict that identifies the state of the code in `file`.

    `script_sha256` is the digest of the file. `git` holds the current `commit` and `dirty`,
    whether tracked files differ from that commit. Each is None where it does not exist.
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
        # `dirty` is None (unknown) where git did not answer in time.
        "git": commit and {"commit": commit, "dirty": None if changed is None else bool(changed)},
    }


def _git(folder: str, *arguments: str) -> str | None:
    """Return the output of git in `folder`; None without git, a repository or an answer."""
    # Without optional locks, `status` cannot block a git command of the user's.
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
