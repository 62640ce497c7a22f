"""A run as the log has it, and how two runs differ."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

from ..support import conditions

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Difference:
    """A condition that was not the same in two runs; as text, what a person says of it.

    Attributes:
        name: of the condition, such as `"torch"` or `"threads"`.
        then, now: its value in the earlier and in the later run.
    """

    name: str
    then: Any
    now: Any

    def __str__(self) -> str:
        if self.name == "script_sha256":
            return "the script has changed" if self.now else "the script is not there"
        return f"{self.name} was {self.then}, is {self.now}"


class Run(SimpleNamespace):
    """A run as the log has it.

    Attributes:
        id: 12 hexadecimal digits.
        began: when, in UTC, as ISO 8601 writes it.
        duration: seconds; None if the run has not ended.
        outcome: `"ok"`, or the exception that ended it; None if it has not ended.
        notes: what `note()` added, with the types it had.
        command, folder: the process's command line, and the folder in which it was started.
        is_child: whether another process's code started it, by multiprocessing or a fork.
        text_hash: a hash of a string, to tell whether Python hashed as it does here.
        function: the digest of the function, for a seed of a sweep.
        script, script_sha256: path and digest of the process's main file, if it has one.
        git: `commit` and whether it was `dirty`; None where there is no repository.
        versions, devices, threads: of Python and libraries, of CPU and GPUs, of torch's CPU work.
        settings, options: the determinism settings in force, and `seeded`'s arguments.
        rank: of this process, where several ran together.
        process, ordinal: which process it was, and its how manieth logged run.
        sweep: the function, for one seed of a sweep.
        error: the traceback, for a seed of a sweep that raised.
        replays: the id of the run that this one replays.
    """

    # A namespace and no dataclass: 100,000 runs are read in half a second less.
    id: str
    seed: int
    began: str
    duration: float | None = None
    outcome: str | None = None
    notes: Mapping[str, Any] = _NONE
    command: Sequence[str] = ()
    folder: str = ""
    script: str | None = None
    script_sha256: str | None = None
    git: dict[str, Any] | None = None
    versions: Mapping[str, str | None] = _NONE
    devices: Sequence[str] = ()
    threads: int | None = None
    settings: Mapping[str, Any] = _NONE
    options: Mapping[str, Any] = _NONE
    rank: int | None = None
    process: str = ""
    ordinal: int | None = 0
    is_child: bool = False
    text_hash: int | None = None
    function: str | None = None
    sweep: str | None = None
    error: str | None = None
    replays: str | None = None

    def what(self) -> str:
        """Return what was run: a sweep's function, or the command, as a shell takes it."""
        name = os.path.basename(self.command[0]) if self.command else ""
        words = ["seedscope", *self.command[3:]] if self.is_launched else [name, *self.command[1:]]
        return self.sweep or shlex.join(words)

    @property
    def is_launched(self) -> bool:
        """Whether `seedscope run` ran it."""
        return list(self.command[1:3]) == ["-m", "seedscope"]

    def differences(self, later: Run) -> list[Difference]:
        """Return what bears on the results and is not the same in a `later` run."""
        then, now = self._conditions(), later._conditions()
        found = [Difference(name, then.get(name), now.get(name)) for name in {**then, **now}]
        return [difference for difference in found if difference.then != difference.now]

    def _conditions(self) -> dict[str, Any]:
        git = self.git or {}
        named = {"commit": git.get("commit"), "uncommitted changes": git.get("dirty")}
        for name in ("seed", "script_sha256", "folder", "devices", "threads", "options"):
            named[name] = getattr(self, name, None)
        return {**named, **self.versions, **self.settings}


def changed_since(run: Run, code: Mapping[str, Any] | None = None) -> list[Difference]:
    """Return what of code and versions is not as in `run`.

    `code` is what `conditions.code_state` tells now, by default of the file that `run` ran.
    """
    now = Run(versions=conditions.versions(), **(code or conditions.code_state(run.script)))
    names = ("commit", "uncommitted changes", "script_sha256", *now.versions)
    return [difference for difference in run.differences(now) if difference.name in names]
