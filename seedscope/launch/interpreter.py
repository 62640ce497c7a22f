"""Restart the interpreter once, with a hash seed.

This module does not import torch: the import takes a second, in a process that is replaced.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from ..seeds import fresh_seed
from ..support.process_start import REPLAY_VARIABLE, variables

if TYPE_CHECKING:
    pass


# Passes the seed to the restarted interpreter.
SEED_VARIABLE = "SEEDSCOPE_RUN_SEED"


class LaunchError(Exception):
    """The program does not exist, or has no seed. The message is one line."""


def _torch_version() -> str:
    """Return the version of torch without importing torch, which takes a second."""
    from importlib import metadata

    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:  # built in place
        return ""


def start_anew(seed: int, arguments: Sequence[str]) -> NoReturn:
    environment = {
        **os.environ,
        **variables(seed, os.environ.get("CUBLAS_WORKSPACE_CONFIG"), _torch_version()),
        SEED_VARIABLE: str(seed),
    }
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    options = interpreter_options()
    os.execve(sys.executable, [sys.executable, *options, *arguments], environment)


def interpreter_options() -> list[str]:
    """Return the options that the interpreter was started with, such as `-X dev`."""
    options = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)]
    if options and options[-1][-1] in "mc":  # -m seedscope, also at the end of -Bm
        last = options.pop()[:-1]
        if last != "-":
            options.append(last)
    return options


def choose_seed(seed: int | None) -> int:
    if seed is not None:
        return seed
    if REPLAY_VARIABLE in os.environ:
        from ..runs.process import replayed_seed

        if (replayed := replayed_seed()) is not None:
            return replayed
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return fresh_seed()
    needed = "several ranks need a common seed: pass it with --seed N"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise LaunchError(needed)
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # torchrun keeps a store for its ranks before any process group exists.
    # https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.TCPStore
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=60))
        return int(store.compare_set("seedscope/run-seed", "", str(fresh_seed())))
    except RuntimeError as error:
        raise LaunchError(f"{needed} ({str(error).splitlines()[0]})") from error
