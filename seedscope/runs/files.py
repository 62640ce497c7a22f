"""The file of a run log: opened without waiting, read and written within bounds."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import time
import weakref
from codecs import BOM_UTF8
from collections.abc import Iterator

from ..support.forks import at_fork
from .records import LONGEST_LINE

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# A pipe without another end would make the call wait.
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CHUNK = 2**18  # bytes
_APPENDING = os.O_RDWR | os.O_APPEND | os.O_CREAT
_POLL_S = 0.002
# How often an append opens the file again: a file system may give no file the same number twice.
_REPLACEMENTS = 9
_CHILDS_PATIENCE_S = 5.0

_patience_s = 60.0
_forks = 0
# The files that appends have open. A list that kept them would keep them open.
_held: list[weakref.ref[io.FileIO]] = []


class LogError(OSError):
    """The log cannot take a line, for a reason that is not the system's."""


def check_regular(path: str) -> None:
    """Check that `path` is a regular file or does not exist, without opening it.

    Raises:
        OSError: it is something else, or its folder cannot be read.
    """
    try:
        _check_kind(path, os.stat(path))
    except FileNotFoundError:
        return


def open_to_read(path: str) -> io.BufferedReader:
    """Open a regular file.

    Raises:
        OSError: the file does not exist, is no regular file, or cannot be read.
    """
    check_regular(path)  # to open a device may already do something
    return io.BufferedReader(_open(path, os.O_RDONLY, "r"))


def bounded_lines(file: io.BufferedReader) -> Iterator[bytes | None]:
    """Yield the lines of a file without their ends, and None for a line longer than allowed."""
    pieces: list[bytes] = []
    size = 0
    if file.peek(3).startswith(BOM_UTF8):  # some editors put it in front
        file.read(len(BOM_UTF8))
    while chunk := file.read(_CHUNK):
        first, *lines = chunk.split(b"\n")
        size += len(first)
        if size > LONGEST_LINE:
            pieces.clear()  # a line without end is not held
        else:
            pieces.append(first)
        if lines:
            yield b"".join(pieces) if size <= LONGEST_LINE else None
            last = lines.pop()
            yield from lines
            pieces, size = [last], len(last)
    if size:
        yield b"".join(pieces) if size <= LONGEST_LINE else None


def append_line(path: str, line: bytes, process: int) -> None:
    """Write a line at the end of the file, whole or not at all; create the file and its folder.

    A line that the file ends with already is not written again: an interrupt may have come right
    after the write, and the caller may try again.

    One thread or process at a time writes to a file, whatever link to it `path` is. The kernel
    holds the lock for the open file and ends it as the file is closed: no interrupt can leave it
    behind. Locks that a library keeps in Python can be left, and stop a later fork.

    Args:
        path: the path of the file.
        line: the line, with its end.
        process: the id of the process that began the append. In a child that a signal handler has
            forked since, the call does nothing: its parent writes the line.

    Raises:
        OSError: the line is too long, `path` is no regular file, or it was not written.
    """
    if len(line) > LONGEST_LINE:
        size = f"{len(line) / 2**20:.0f} MiB"
        raise LogError(f"a line of the log has at most {LONGEST_LINE // 2**20} MiB, not {size}")
    try:
        for is_last in [*[False] * _REPLACEMENTS, True]:
            if _append_if_present(path, line, process, is_last):
                return
    except (OSError, ValueError) as error:
        # A child that was forked just now has the file closed: its parent writes the line.
        is_closed = "closed file" in str(error) or getattr(error, "errno", 0) == errno.EBADF
        if os.getpid() == process or not is_closed:
            raise


def _append_if_present(path: str, line: bytes, process: int, is_last: bool) -> bool:
    """Append, and return True; return False to try again, unless this `is_last` of the tries."""
    forks = _forks
    with _open_to_append(path) as file:
        held = weakref.ref(file)
        _held.append(held)
        try:
            if os.getpid() != process:
                return True
            # A child that was forked before the file was in the list would keep its lock.
            if forks == _forks or is_last:
                _lock(file)
                if is_last or _is_at(path, file):
                    _append(file, line)
                    return True
            return False
        finally:
            _release(file, held)


def _is_at(path: str, file: io.FileIO) -> bool:
    """Return whether `path` still names the file: another program may have put a new one there."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _open_to_append(path: str) -> io.FileIO:
    check_regular(path)
    try:
        return _open(path, _APPENDING, "a+")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return _open(path, _APPENDING, "a+")


def _lock(file: io.FileIO) -> None:
    end = time.monotonic() + _patience_s
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                said = f"another process has held its lock for {_patience_s:g} s"
                raise LogError(f"{said}: see which one has it open, and end it") from None
        time.sleep(_POLL_S)


def _release(file: io.FileIO, held: weakref.ref[io.FileIO]) -> None:
    try:
        if not file.closed:  # a child that was forked just now has it closed
            fcntl.flock(file, fcntl.LOCK_UN)  # first: a child may keep what is not in the list
    finally:
        with contextlib.suppress(ValueError):  # nor is it in the list there
            _held.remove(held)


def _append(file: io.FileIO, line: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - len(line) - 1))
    last = file.read(end - file.tell())
    if last[-len(line) :] == line and last[: -len(line)] in (b"", b"\n"):
        return
    if last and not last.endswith(b"\n"):  # end the line that a killed process left torn
        line = b"\n" + line
    try:
        while line:  # a disk that fills up accepts a part, then refuses
            line = line[file.write(line) :]
    except OSError:
        file.truncate(end)
        raise


def _open(path: str, flags: int, mode: str) -> io.FileIO:
    # In one step: an interrupt between the two would leave the descriptor open.
    file = next(map(io.FileIO, map(os.open, [path], [flags | _FLAGS], [0o666]), [mode]))
    try:
        _check_kind(path, os.fstat(file.fileno()))  # it may have changed since the check
    except OSError:
        file.close()
        raise
    return file


def _check_kind(path: str, found: os.stat_result) -> None:
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind is not None:
        raise LogError(f"{path} is {kind}: name a regular file as the log")


def _before_fork() -> None:
    global _forks
    _forks += 1


def _after_fork_in_child() -> None:
    # The lock of an open file lasts until parent and child have closed it: that of a parent that
    # is killed now would be the child's for ever. A signal handler may have forked the child in an
    # append, and wait for its end: the child does not wait as long for the lock.
    global _patience_s
    if _held:
        _patience_s = _CHILDS_PATIENCE_S
    while _held:
        file = _held.pop()()
        if file is not None:
            file.close()


at_fork(_after_fork_in_child, _before_fork)
