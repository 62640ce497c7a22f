"""The run log: one JSON object a line, with a run's seed and conditions.

A run has two lines. The first is written when the run begins, so that its seed survives a
crash. The second is written when the run ends and contains everything. The file is
append-only. The last key of a line is unique in the line and marks the line as complete.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from filelock import FileLock  # comes with torch

from ..support.remarks import warn, write_error
from .run import Run
from .values import decode

T = TypeVar("T")

_LOCK_PATIENCE_S = 60
_appending = threading.local()

# As json.dumps and `jq -c` write them.
_BEGIN, _END = b'{"event":"begin","id":"', b'{"event":"end","id":"'
_COMPLETE = b'"$complete":true}\n'

# What a line must have, if it has the field. Others are shown as they are.
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("id", "began"), str),
    **dict.fromkeys(("notes", "versions", "settings", "options", "reseeded"), dict),
    **dict.fromkeys(("command", "devices"), list),
    "duration": (int, float),
    "seed": int,
}
_to_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class RunLog:
    """The runs logged in the file `path`; iteration yields those that ended.

    Any number of processes and threads may append at once. If the file cannot be written, a
    `RuntimeWarning` gives the run's seed and notes, and the run continues. An unreadable
    line, such as a line torn by a killed process, is left out with a warning. A log whose
    file does not exist is empty.

    Attributes:
        path: the absolute path of the file.
        lost: the number of lines that this object could not write.

    Raises:
        TypeError: `path` is not a path.
        ValueError: `path` contains a null character.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"a log is a path or a RunLog, got {path!r} ({type(path).__name__})")
        # Absolute now: the working folder may have changed when a run ends.
        self.path: str = os.path.abspath(os.fsdecode(path))
        if "\0" in self.path:
            raise ValueError(f"a path must not contain a null character, got {path!r}")
        self.lost: int = 0

    def __repr__(self) -> str:
        return f"RunLog({self.path!r})"

    def __iter__(self) -> Iterator[Run]:
        """Yield the runs that ended, in the order in which they ended.

        Raises:
            ValueError: the file has lines, and none of them is a run record.
        """
        yield from self._read(lambda line: _run(line) if line.startswith(_END) else None)

    def unfinished(self) -> list[Run]:
        """Return the runs that began but have not ended: killed, or still running."""
        began: dict[bytes, Run] = {}
        for identity, run in self._read(_begun):
            if run is not None:
                began[identity] = run
            else:
                began.pop(identity, None)
        return [*began.values()]

    def find(self, prefix: str) -> Run:
        """Return the run, ended or not, whose id starts with `prefix`.

        Raises:
            LookupError: no run matches, or more than one.
        """
        runs: list[Run] = [*self.unfinished(), *self]
        found = {run.id: run for run in runs if run.id.startswith(prefix)}
        if not prefix or len(found) != 1:
            what = f"{len(found)} runs" if found else "no run"
            raise LookupError(f"{what} with an id that starts with {prefix!r} in {self.path}")
        return next(iter(found.values()))

    def _read(self, parse: Callable[[bytes], T | None]) -> Iterator[T]:
        """Yield what `parse` returns for each readable line; warn of the other lines."""
        bad: list[str] = []
        good = 0
        try:
            file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        with file:
            for number, line in enumerate(file, 1):
                if line.isspace():
                    continue
                try:
                    found = parse(line) if _is_complete(line) else _refuse(line)
                except ValueError as error:
                    bad.append(f"line {number} {error}")
                    continue
                good += 1
                if found is not None:
                    yield found
        if bad and not good and line.endswith(b"\n"):
            raise ValueError(f"{self.path} is not a run log: {bad[0]}")
        if bad:
            more = f" (and {len(bad) - 3} more)" if len(bad) > 3 else ""
            left_out = "; ".join(bad[:3]) + more
            warn(f"{self.path}: lines left out: {left_out}", RuntimeWarning, stacklevel=3)

    def append(self, event: str, run: Mapping[str, Any]) -> None:
        """Append a line; if that fails, warn with the run's seed and notes."""
        whole = {"event": event, **run, "$complete": True}
        queue = getattr(_appending, "queue", None)
        # The second test: Ctrl-C may have ended the append that had the queue, in its last line.
        if queue is not None and _is_running(RunLog.append):
            # A signal handler or finaliser has interrupted the lines below. An append here
            # would wait for a lock that this thread holds.
            queue.append((self, whole))
            return
        try:
            _appending.queue = queue = [(self, whole)]
            while queue:
                log, whole = queue.pop(0)
                log._append_or_tell(whole)
        finally:
            _appending.queue = None

    def _append_or_tell(self, whole: Mapping[str, Any]) -> None:
        try:
            self._append(f"{_to_json(whole)}\n".encode())
        except (OSError, NotImplementedError, ValueError) as error:  # a Timeout is an OSError
            self.lost += 1
            notes = f" with notes {json.dumps(whole['notes'])}" if whole.get("notes") else ""
            _tell(
                f"the run of seed {whole['seed']}{notes} could not be logged in {self.path} "
                f"({type(error).__name__}: {error}); the run continues"
            )
        except BaseException as error:
            # filelock wraps a Ctrl-C during its cleanup in an exception group.
            if any(isinstance(one, KeyboardInterrupt) for one in getattr(error, "exceptions", ())):
                raise KeyboardInterrupt from error
            raise

    def _append(self, line: bytes) -> None:
        # Creating a lock takes a fifth of an append, so each thread keeps its last lock; a
        # forked child creates its own. Ctrl-C can leave a lock held. So a lock is kept only
        # after a successful append; otherwise its last reference goes, which releases it.
        key = (os.getpid(), self.path)
        kept, _appending.lock = getattr(_appending, "lock", None), None
        if kept is not None and kept[0] == key:
            lock = kept[1]
        else:
            # Only this thread uses the lock, so filelock need not keep a state per thread.
            lock = FileLock(f"{self.path}.lock", timeout=_LOCK_PATIENCE_S, thread_local=False)
        # filelock also creates a missing folder.
        with lock.acquire(poll_interval=0.002), open(self.path, "a+b", buffering=0) as file:
            _write(file, line)
        _appending.lock = (key, lock)


def _write(file: io.FileIO, line: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":  # end the line that a killed process left torn
            line = b"\n" + line
    try:
        while line:  # a disk that fills up accepts a part, then refuses
            line = line[file.write(line) :]
    except OSError:
        file.truncate(end)
        raise


def as_log(log: RunLog | str | os.PathLike[str]) -> RunLog:
    return log if isinstance(log, RunLog) else RunLog(log)


def _tell(message: str) -> None:
    # A filter that turns warnings into errors, or a closed stderr, must not end the run.
    try:
        warn(message, RuntimeWarning, stacklevel=5)
    except (RuntimeWarning, OSError, ValueError):
        write_error(f"seedscope: {message}")


def _is_complete(line: bytes) -> bool:
    return line.endswith(_COMPLETE) and line.startswith((_END, _BEGIN))


def _refuse(line: bytes) -> NoReturn:
    if line.startswith((_BEGIN, _END)):
        raise ValueError("is torn: a killed process left it, or a process is writing it now")
    raise ValueError("is not a run record")


def _begun(line: bytes) -> tuple[bytes, Run | None]:
    """Return the id in a line, and the run if the line is of its begin."""
    is_begin = line.startswith(_BEGIN)
    start = len(_BEGIN if is_begin else _END)
    return line[start : line.index(b'"', start)], _run(line) if is_begin else None


def _run(line: bytes) -> Run:
    try:
        record = json.loads(line)
        if b'{"$' in line and "notes" in record:
            record["notes"] = {name: decode(value) for name, value in record["notes"].items()}
        for name, kind in _KINDS.items():
            if name in record and not isinstance(record[name], kind):
                raise TypeError(f"{name} is {record[name]!r:.50}")
        return Run(**record)
    except Exception as error:  # whatever the damage leads to
        raise ValueError(f"is damaged ({type(error).__name__}: {error})") from error


def _is_running(function: Callable[..., Any]) -> bool:
    """Return whether this thread is in the middle of another call of `function`."""
    frame = sys._getframe(1).f_back  # that of its caller
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


def _after_fork_in_child() -> None:
    # The fork may have come in the middle of an append, whose lines its parent will write.
    _appending.queue = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
