"""The run log: seeds, and what belongs to them, one JSON object a line.

A run has two lines: one from when it began, so that a crash leaves its seed, and one from
when it ended, which has everything. The file is only ever appended to, and the last key
of a line, which nothing else in it is named like, shows that the line is not torn.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from filelock import FileLock  # comes with torch

from .run import Run
from .values import decode

_LOCK_PATIENCE_S = 60
_appending = threading.local()

# As json.dumps and `jq -c` write them.
_BEGIN, _END = b'{"event":"begin","id":"', b'{"event":"end","id":"'
_COMPLETE = b'"$complete":true}\n'
_to_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class RunLog:
    """The runs that were kept in the file `path`; iterating gives those that ended.

    Any number of processes and threads may append at once. Where the file cannot be
    written, a `RuntimeWarning` has the record instead and the run goes on. A line that
    cannot be read, such as one that a killed process left torn, is left out with a warning.
    A log that was not written to yet is empty.

    Raises:
        TypeError: `path` is no path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"a log is a path or a RunLog, got {path!r} ({type(path).__name__})")
        # Absolute now: the working folder may be another one when a run ends.
        self.path = os.path.abspath(os.fsdecode(path))
        if "\0" in self.path:
            raise ValueError(f"a path has no null character, got {path!r}")

    def __repr__(self) -> str:
        return f"RunLog({self.path!r})"

    def __iter__(self) -> Iterator[Run]:
        """Give the runs that ended, in the order in which they did.

        Raises:
            ValueError: the file has lines, and none of them is a run's.
        """
        for line in self._lines():
            if line.startswith(_END):
                yield _run(line)

    def unfinished(self) -> list[Run]:
        """Return the runs that began and have not ended: killed, or still running."""
        began: dict[bytes, bytes] = {}
        for line in self._lines():
            is_begin = line.startswith(_BEGIN)
            start = len(_BEGIN if is_begin else _END)
            identity = line[start : line.index(b'"', start)]
            if is_begin:
                began[identity] = line
            else:
                began.pop(identity, None)
        return [_run(line) for line in began.values()]

    def find(self, prefix: str) -> Run:
        """Return the run, ended or not, whose id starts with `prefix`.

        Raises:
            LookupError: there is none, or more than one.
        """
        runs: list[Run] = [*self.unfinished(), *self]
        found = {run.id: run for run in runs if run.id.startswith(prefix)}
        if not prefix or len(found) != 1:
            what = f"{len(found)} runs" if found else "no run"
            raise LookupError(f"{what} with an id that starts with {prefix!r} in {self.path}")
        return next(iter(found.values()))

    def _lines(self) -> Iterator[bytes]:
        """The lines that can be read; a warning names the others."""
        bad: list[str] = []
        good = 0
        try:
            file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        with file:
            for number, line in enumerate(file, 1):
                if line.endswith(_COMPLETE) and line.startswith((_END, _BEGIN)):
                    good += 1
                    yield line
                elif not line.isspace():
                    bad.append(f"line {number} {_unreadable(line)}")
        if bad and not good and line.endswith(b"\n"):
            raise ValueError(f"{self.path} is no run log: {bad[0]}")
        if bad:
            more = f" (and {len(bad) - 3} more)" if len(bad) > 3 else ""
            left_out = "; ".join(bad[:3]) + more
            warnings.warn(f"{self.path}: left out {left_out}", RuntimeWarning, stacklevel=3)

    def append(self, event: str, run: Mapping[str, Any]) -> None:
        """Append a line; where that fails, warn with the line and go on."""
        whole = {"event": event, **run, "$complete": True}
        queue = getattr(_appending, "queue", None)
        if queue is not None:
            # A signal's handler, or the garbage collector, has come in between the lines below:
            # in this thread, which would wait for its own lock.
            queue.append((self, whole))
            return
        _appending.queue = queue = [(self, whole)]
        try:
            while queue:
                log, whole = queue.pop(0)
                log._append_or_tell(whole)
        finally:
            _appending.queue = None

    def _append_or_tell(self, whole: Mapping[str, Any]) -> None:
        try:
            self._append(f"{_to_json(whole)}\n".encode())
        except (OSError, NotImplementedError, ValueError) as error:  # a Timeout is an OSError
            notes = f", which noted {json.dumps(whole['notes'])}," if whole.get("notes") else ""
            _tell(
                f"the run of seed {whole['seed']}{notes} could not be logged in {self.path} and "
                f"goes on ({type(error).__name__}: {error})"
            )
        except BaseException as error:
            # filelock puts a Ctrl-C that meets its cleaning up into a group.
            if any(isinstance(one, KeyboardInterrupt) for one in getattr(error, "exceptions", ())):
                raise KeyboardInterrupt from error
            raise

    def _append(self, line: bytes) -> None:
        # Making a lock takes a fifth of an append, so each thread keeps its last one; a forked
        # child makes its own. Ctrl-C can leave a lock held. So a lock is kept only after an
        # append that succeeded; otherwise nothing refers to it, and that releases it.
        key = (os.getpid(), self.path)
        kept, _appending.lock = getattr(_appending, "lock", None), None
        if kept is not None and kept[0] == key:
            lock = kept[1]
        else:
            # This thread alone uses it, so filelock need not keep a state for each thread.
            lock = FileLock(f"{self.path}.lock", timeout=_LOCK_PATIENCE_S, thread_local=False)
        # filelock makes a missing folder too.
        with lock.acquire(poll_interval=0.002), open(self.path, "a+b", buffering=0) as file:
            _write(file, line)
        _appending.lock = (key, lock)


def _write(file: io.FileIO, line: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":  # torn by a process that was killed: ends here
            line = b"\n" + line
    try:
        while line:  # a disk that fills takes a part, and refuses the next
            line = line[file.write(line) :]
    except OSError:
        file.truncate(end)
        raise


def as_log(log: RunLog | str | os.PathLike[str]) -> RunLog:
    return log if isinstance(log, RunLog) else RunLog(log)


def _tell(message: str) -> None:
    # It must not cost the run its result: where a filter makes it an error, or stderr is closed.
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=5)
    except RuntimeWarning:
        with contextlib.suppress(OSError, ValueError):
            print(f"seedscope: {message}", file=sys.stderr)
    except (OSError, ValueError):
        pass


def _unreadable(line: bytes) -> str:
    if line.startswith((_BEGIN, _END)):
        return "is torn: a process was killed while it wrote it, or is writing it now"
    return "is no run's"


def _run(line: bytes) -> Run:
    record = json.loads(line)
    if b'{"$' in line and "notes" in record:
        record["notes"] = {name: decode(value) for name, value in record["notes"].items()}
    return Run(**record)


def _after_fork_in_child() -> None:
    # The thread that was appending at the fork may not be in the child, or never goes on.
    _appending.queue = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
