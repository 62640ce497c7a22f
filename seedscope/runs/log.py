"""The run log: one JSON object a line, with a run's seed and conditions.

A run has two lines. The first is written when the run begins, so that its seed survives a
crash. The second is written when the run ends and contains everything. The file is
append-only. The last key of a line is unique in the line and marks the line as complete.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from ..support.forks import at_fork
from ..support.remarks import level_of_the_user, warn, write_error
from .files import LogError, append_line, bounded_lines, open_to_read
from .records import LONGEST_LINE, begun, ended
from .run import Run

T = TypeVar("T")

_BAD_LINES_SHOWN = 3
_appending = threading.local()

_NOTES_SHOWN = 10_000  # characters, in a warning
_to_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class RunLog:
    """The runs logged in the file `path`; iteration yields those that ended.

    Any number of processes and threads may append at once. If the file cannot be written, a
    `RuntimeWarning` gives the run's seed and notes, and the run continues. An unreadable
    line, such as a line torn by a killed process, is left out with a warning. A line may have
    other spacing, as other tools write it. A log whose file does not exist is empty.

    Attributes:
        path: the absolute path of the file.
        lost: the number of lines that this object could not write.

    Raises:
        TypeError: `path` is not a path.
        ValueError: `path` is empty, or contains a null character.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"a log is a path or a RunLog, got {path!r} ({type(path).__name__})")
        if not os.fspath(path):
            raise ValueError(f"a log needs the name of a file, got {path!r}")
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
            OSError: the file cannot be read, or is no regular file.
            ValueError: the file has lines, and none of them is a run record.
        """
        seen: set[str] = set()

        def parse(line: bytes) -> Run | None:
            run = ended(line)
            if run is not None:
                if run.id in seen:
                    raise ValueError(f"repeats the run {run.id}")
                seen.add(run.id)
            return run

        yield from self._read(parse)

    def unfinished(self) -> list[Run]:
        """Return the runs that began but have not ended: killed, or still running.

        Raises:
            OSError, ValueError: as for the runs that ended.
        """
        began: dict[str, Run] = {}
        for identity, run in self._read(begun):
            if run is not None:
                began[identity] = run
            else:
                began.pop(identity, None)
        return [*began.values()]

    def find(self, prefix: str) -> Run:
        """Return the run, ended or not, whose id starts with `prefix`.

        Raises:
            LookupError: no run matches, or more than one.
            OSError, ValueError: as for the runs that ended.
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
        left_out = good = 0
        try:
            file = open_to_read(self.path)
        except FileNotFoundError:
            return
        with file:
            for number, line in enumerate(bounded_lines(file), 1):
                if line == b"":
                    continue
                try:
                    found = _refuse_length() if line is None else parse(line)
                except ValueError as error:
                    if line and line.isspace():
                        continue
                    left_out += 1
                    if left_out <= _BAD_LINES_SHOWN:
                        bad.append(f"line {number} {error}")
                    continue
                good += 1
                if found is not None:
                    yield found
        if bad and not good and " is torn" not in bad[0]:  # one may be the first of a log
            raise ValueError(f"{self.path} is not a run log: {bad[0]}")
        if bad:
            more = f" (and {left_out - len(bad)} more)" if left_out > len(bad) else ""
            shown = "; ".join(bad) + more
            warn(f"{self.path}: lines left out: {shown}", RuntimeWarning, stacklevel=3)

    def append(self, event: str, run: Mapping[str, Any]) -> None:
        """Append a line; if that fails, warn with the run's seed and notes."""
        process, whole = os.getpid(), {"event": event, **run, "$complete": True}
        queue = getattr(_appending, "queue", None)
        # The second test: Ctrl-C may have ended the append that had the queue, in its last line.
        if queue is not None and _is_running(RunLog.append):
            # A signal handler or finaliser has interrupted the lines below. An append here
            # would wait for a lock that this thread holds.
            queue.append((self, whole))
            return
        own = (self, whole)
        queue = [own]
        try:
            _appending.queue = queue
            while queue:
                log, whole = queue[0]
                log._append_or_tell(whole, process)
                del queue[0]
        except BaseException:
            # Those of a signal handler, which has then raised. The caller tries its own again.
            for log, whole in [line for line in queue if line is not own]:
                log._append_or_tell(whole, process)
            raise
        finally:
            _appending.queue = None

    def _append_or_tell(self, whole: Mapping[str, Any], process: int) -> None:
        try:
            append_line(self.path, _as_line(whole), process)
        except OSError as error:
            if error.errno is None and not isinstance(error, LogError):
                raise  # of a signal handler, and not of the system
            self.lost += 1
            notes = f" with notes {json.dumps(whole['notes'])}" if whole.get("notes") else ""
            if len(notes) > _NOTES_SHOWN:
                notes = f"{notes[:_NOTES_SHOWN]}…"
            _tell(
                f"the run of seed {whole['seed']}{notes} could not be logged in {self.path} "
                f"({type(error).__name__}: {error}); the run continues"
            )


def as_log(log: RunLog | str | os.PathLike[str]) -> RunLog:
    return log if isinstance(log, RunLog) else RunLog(log)


def _as_line(whole: Mapping[str, Any]) -> bytes:
    try:
        return f"{_to_json(whole)}\n".encode()
    except ValueError as error:  # a seed of other code that has too many digits
        raise LogError(str(error)) from error


def _tell(message: str) -> None:
    # A filter that turns warnings into errors, or a closed stderr, must not end the run.
    try:
        warn(message, RuntimeWarning, stacklevel=level_of_the_user())
    except (RuntimeWarning, OSError, ValueError):
        write_error(f"seedscope: {message}")


def _refuse_length() -> NoReturn:
    raise ValueError(f"is longer than {LONGEST_LINE // 2**20} MiB")


def _is_running(function: Callable[..., Any]) -> bool:
    """Return whether this thread is in the middle of another call of `function`."""
    frame = sys._getframe(1).f_back  # that of its caller
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


def _after_fork_in_child() -> None:
    # The fork may have come in the middle of an append, whose lines its parent will write.
    _appending.queue = None


at_fork(_after_fork_in_child)
