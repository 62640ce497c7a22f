"""A logged run, and the differences between two runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

from ..support import conditions
from ..support.visible import shell

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Difference:
    """A condition that differs between two runs; `str()` describes it in words.

    Attributes:
        name: the name of the condition, such as `"torch"` or `"threads"`.
        then, now: the values in the earlier and in the later run.
    """

    name: str
    then: Any
    now: Any

    def __str__(self) -> str:
        if self.name == "script_sha256":
            return "the script has changed" if self.now else "the script no longer exists"
        then, now = ("absent" if x is None else x for x in (self.then, self.now))
        return f"{self.name} was {then}, is {now}"


class Run(SimpleNamespace):
    """A logged run.

    Attributes:
        id: 12 hexadecimal digits.
        seed: the seed, in [0, 2**64).
        began: the time of the beginning, in UTC, as an ISO 8601 string.
        duration: the duration in seconds; None if the run has not ended.
        outcome: `"ok"`, or the exception that ended the run; None if it has not ended.
        notes: the values that `note()` added, with their types.
        command, folder: the process's command line, and the folder in which it was started.
        is_child: whether multiprocessing or a fork started the process.
        text_hash: the hash of a fixed string, which depends on Python's hash seed.
        function: the digest of the function, for a seed of a sweep.
        script, script_sha256: the path and digest of the process's main file, if any.
        git: `commit` and whether files were changed (`dirty`); None without a repository.
        versions: the versions of Python and the libraries.
        devices: the names of the CPU and the GPUs in use.
        threads: the number of torch's CPU threads.
        settings, options: the determinism settings at the beginning, and `seeded`'s arguments.
        rank: the rank of the process (`RANK`), where several processes run together.
        process: the id of the process.
        ordinal: the run's index within the process, from 0; None for a seed of a sweep.
        sweep: the name of the function, for a seed of a sweep.
        reseeded: the sources that code in the run has seeded with another seed than the run's, and
            that seed; None for fresh entropy.
        replaced: the operations that ran in seedscope's form, each with the version of its formula,
            and with "unproved" or "refused" if that is so for some calls.
        error: the traceback, for a seed of a sweep that raised.
        replays: the id of the run that this run replays.
    """

    # Not a dataclass: a namespace reads 100,000 runs in half a second less.
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
    reseeded: Mapping[str, int | None] = _NONE
    replaced: Mapping[str, str] = _NONE
    error: str | None = None
    replays: str | None = None

    def what(self) -> str:
        """Return the name of the sweep's function, or the command in shell syntax."""
        name = os.path.basename(self.command[0]) if self.command else ""
        words = ["seedscope", *self.command[3:]] if self.is_launched else [name, *self.command[1:]]
        return self.sweep or shell(words)

    @property
    def is_launched(self) -> bool:
        """Return whether `seedscope run` started the process."""
        return list(self.command[1:3]) == ["-m", "seedscope"]

    def differences(self, later: Run) -> list[Difference]:
        """Return the conditions that affect results and differ in a `later` run."""
        then, now = self._conditions(), later._conditions()
        found = [Difference(name, then.get(name), now.get(name)) for name in {**then, **now}]
        return [difference for difference in found if difference.then != difference.now]

    def _conditions(self) -> dict[str, Any]:
        git = self.git or {}
        named = {"commit": git.get("commit"), "uncommitted changes": git.get("dirty")}
        for name in ("seed", "script_sha256", "folder", "devices", "threads", "options"):
            named[name] = getattr(self, name, None)
        replaced = {f"replacement of {name}": state for name, state in self.replaced.items()}
        return {**named, **self.versions, **self.settings, **replaced}


def changed_since(run: Run, code: Mapping[str, Any] | None = None) -> list[Difference]:
    """Return the differences in code and versions between `run` and now.

    Args:
        run: the earlier run.
        code: a result of `conditions.code_state`; by default that of `run.script`.
    """
    now = Run(versions=conditions.versions(), **(code or conditions.code_state(run.script)))
    names = ("commit", "uncommitted changes", "script_sha256", *now.versions)
    return [difference for difference in run.differences(now) if difference.name in names]
