"""The facts that all runs of a process share, and the process that it replays."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from ..support import conditions
from ..support.forks import at_fork
from ..support.process_start import REPLAY_VARIABLE
from .log import RunLog
from .run import Run


class Process:
    """The facts that all runs of one process share. A forked child is another process."""

    _known: ClassVar[dict[int, Process]] = {}

    #: The command that the user typed, if it differs from the interpreter's command line.
    command: list[str] | None = None

    def __init__(self) -> None:
        script = conditions.main_file()
        self.pid: int = os.getpid()
        self.id: str = secrets.token_hex(6)
        self.ordinals: Iterator[int] = itertools.count()
        self.facts: dict[str, Any] = {
            "command": self.command or sys.orig_argv,
            "versions": conditions.versions(),
            "devices": conditions.devices(),
            "is_child": _is_forked or multiprocessing.parent_process() is not None,
            "text_hash": hash("seedscope"),
            "rank": int(os.environ["RANK"]) if os.environ.get("RANK", "").isdecimal() else None,
            "script": script,
            **conditions.code_state(script),
        }
        self.replay_log: RunLog | None
        self.replayed: dict[int, Run]
        self.replay_log, self.replayed = _asked_replay()

    @classmethod
    def this(cls) -> Process:
        pid = os.getpid()
        if pid not in cls._known:
            cls._known.setdefault(pid, cls())  # another thread may have been faster
            # A child process must not replay these runs too.
            os.environ.pop(REPLAY_VARIABLE, None)
        return cls._known[pid]

    def is_current(self) -> bool:
        return self.pid == os.getpid()


def set_command(command: Sequence[str]) -> None:
    """Set the command to log, if it differs from the interpreter's command line."""
    Process.command = list(command)


def replay_request(log: RunLog, run: Run) -> dict[str, str]:
    """Return the environment variable that makes a child replay the process of `run`."""
    return {REPLAY_VARIABLE: os.pathsep.join([str(os.getpid()), run.process, log.path])}


def is_replaying() -> bool:
    """Return whether this process was started to replay the runs of another process."""
    return Process.this().replay_log is not None


def replayed_seed() -> int | None:
    """Return the seed that the first logged run of this process must replay, or None."""
    first = _asked_replay()[1].get(0)
    return None if first is None else first.seed


def _asked_replay() -> tuple[RunLog | None, dict[int, Run]]:
    asked = os.environ.get(REPLAY_VARIABLE, "")
    asker, _, rest = asked.partition(os.pathsep)
    if asker != str(os.getppid()):  # only a direct child of the asker replays
        return None, {}
    process, _, path = rest.partition(os.pathsep)
    log = RunLog(path)
    runs = [*log.unfinished(), *log]
    of_it = [run for run in runs if run.process == process and run.ordinal is not None]
    return log, {run.ordinal: run for run in of_it}


_is_forked = False


def _after_fork_in_child() -> None:
    global _is_forked
    _is_forked = True
    Process._known.clear()


at_fork(_after_fork_in_child)
