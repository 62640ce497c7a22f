"""The run log: seeds, and what belongs to them, one JSON object a line.

A run has two lines: one from when it began, so that a crash leaves its seed, and one from
when it ended, which has everything. The file is only ever appended to, and the last key
of a line, which nothing else in it is named like, shows that the line is not torn.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import multiprocessing
import os
import secrets
import shlex
import struct
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock  # comes with torch

from . import machine
from .children import REPLAY_VARIABLE, START_FOLDER
from .seeds import check_seed, fresh_seed
from .settings import SETTINGS

_LOCK_PATIENCE_S = 60
_appending = threading.local()
# As json.dumps and `jq -c` write them.
_BEGIN, _END = b'{"event":"begin","id":"', b'{"event":"end","id":"'
_COMPLETE = b'"$complete":true}\n'
_to_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


_NONE: Mapping[str, Any] = MappingProxyType({})


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

    def differences(self, other: Run) -> dict[str, tuple[Any, Any]]:
        """Return what bears on the results and differs: its name, here, and in `other`."""
        mine, theirs = self._conditions(), other._conditions()
        return {
            name: (mine.get(name), theirs.get(name))
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name)
        }

    def _conditions(self) -> dict[str, Any]:
        git = self.git or {}
        named = {"commit": git.get("commit"), "uncommitted changes": git.get("dirty")}
        for name in ("seed", "script_sha256", "folder", "devices", "threads", "options"):
            named[name] = getattr(self, name, None)
        return {**named, **self.versions, **self.settings}


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


class Entry:
    """A run that is being logged: its seed and what belongs to it.

    With `log=None` nothing is written: the worker of a sweep sends its record home.
    """

    def __init__(
        self, log: RunLog | None, seed: int | None, counted: bool = True, **more: Any
    ) -> None:
        process = _Process.this()
        # A seed of a sweep is none of those that a replay counts through.
        self.ordinal = next(process.ordinals) if counted else None
        then = None if self.ordinal is None else process.replayed.get(self.ordinal)
        if seed is None:
            seed = then.seed if then else fresh_seed()
        if then:
            more["replays"] = then.id
            log = process.replay_log if log else None
        self.seed = check_seed(seed)
        self.id = secrets.token_hex(6)
        self._log, self._process, self._clock = log, process, 0.0
        self._more = more
        self._begun: dict[str, Any] = {}
        self._is_written = False
        self._notes: dict[str, Any] = {}
        self._outcome: str | None = None

    def begin(self) -> None:
        """Note when and in which conditions the run begins, once, and append its first line."""
        if self._begun:
            return
        self._clock = time.perf_counter()
        process = self._process
        self._begun = {
            "id": self.id,
            "seed": self.seed,
            "began": datetime.now(timezone.utc).isoformat(),
            "process": process.id,
            "ordinal": self.ordinal,
            **process.facts,
            "folder": START_FOLDER,
            "threads": torch.get_num_threads(),
            "settings": dict(zip(SETTINGS.names, SETTINGS.capture(), strict=True)),
            **self._more,
        }
        if self._log:
            self._log.append("begin", self._begun)

    def note(self, values: Mapping[str, Any]) -> None:
        """Add to the run's notes.

        Raises:
            TypeError: a value is of a kind that the log cannot keep. Nothing was added.
        """
        if wrong := [name for name in values if name.startswith("$")]:
            raise TypeError(f"a note's name begins with no $, got {wrong[0]!r}")
        self._notes |= {name: encode(value, name) for name, value in values.items()}

    def leave(self, error: BaseException | None) -> None:
        """Remember how the block was left, which may be its last time."""
        self._outcome = outcome_of(error)

    def end(self) -> dict[str, Any]:
        """Append the line with everything, once, and return it."""
        record = {
            **self._begun,
            "duration": time.perf_counter() - self._clock,
            "outcome": self._outcome,
            "devices": machine.devices(),
            "notes": self._notes,
        }
        # A forked child that leaves the block leaves the record to its parent.
        if self._log and self._begun and not self._is_written and self._process.is_current():
            self._is_written = True
            self._log.append("end", record)
        return record


class _Process:
    """What all runs of one process share. A forked child is another process."""

    _known: ClassVar[dict[int, _Process]] = {}

    #: What the user typed, where it is not the interpreter's own command line.
    command: list[str] | None = None

    def __init__(self) -> None:
        script = machine.main_file()
        self.pid = os.getpid()
        self.id = secrets.token_hex(6)
        self.ordinals = itertools.count()
        self.facts = {
            "command": self.command or sys.orig_argv,
            "versions": machine.versions(),
            "devices": machine.devices(),
            "is_child": _is_forked or multiprocessing.parent_process() is not None,
            "text_hash": hash("seedscope"),
            "rank": int(os.environ["RANK"]) if os.environ.get("RANK", "").isdecimal() else None,
            "script": script,
            **machine.code(script),
        }
        self.replay_log, self.replayed = _asked_replay()

    @classmethod
    def this(cls) -> _Process:
        pid = os.getpid()
        if pid not in cls._known:
            cls._known.setdefault(pid, cls())  # another thread may have been quicker
            # Child processes must not take the replay for theirs.
            os.environ.pop(REPLAY_VARIABLE, None)
        return cls._known[pid]

    def is_current(self) -> bool:
        return self.pid == os.getpid()


def set_command(command: Sequence[str]) -> None:
    """Say what was asked for, where it is not the interpreter's own command line."""
    _Process.command = list(command)


def changed_since(run: Run, code: Mapping[str, Any] | None = None) -> dict[str, tuple[Any, Any]]:
    """Return what of code and versions is not as in `run`: name, then, and now.

    `code` is what `machine.code` tells now, by default of the file that `run` ran.
    """
    now = Run(versions=machine.versions(), **(code or machine.code(run.script)))
    names = ("commit", "uncommitted changes", "script_sha256", *now.versions)
    return {name: pair for name, pair in run.differences(now).items() if name in names}


def describe(name: str, then: Any, now: Any) -> str:
    """Return what differs, as a person says it."""
    if name == "script_sha256":
        return "the script has changed" if now else "the script is not there"
    return f"{name} was {then}, is {now}"


def as_log(log: RunLog | str | os.PathLike[str]) -> RunLog:
    return log if isinstance(log, RunLog) else RunLog(log)


def replay_request(log: RunLog, run: Run) -> dict[str, str]:
    """Return the environment variable that makes a process take the seeds of `run`'s process."""
    return {REPLAY_VARIABLE: os.pathsep.join([str(os.getpid()), run.process, log.path])}


def is_replaying() -> bool:
    """Whether this process was started to replay another one's runs."""
    return _Process.this().replay_log is not None


def replayed_seed() -> int | None:
    """Return the seed that the first logged run of this process is to replay, if it is."""
    first = _asked_replay()[1].get(0)
    return None if first is None else first.seed


def _asked_replay() -> tuple[RunLog | None, dict[int, Run]]:
    asked = os.environ.get(REPLAY_VARIABLE, "")
    asker, _, rest = asked.partition(os.pathsep)
    if asker != str(os.getppid()):  # it is for the process that started this one
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
    _Process._known.clear()
    _appending.queue = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def outcome_of(error: BaseException | None) -> str:
    """Return `"ok"`, or the error's type and the first line of what it says."""
    is_exit = isinstance(error, SystemExit) and error.code in (None, 0)
    ends = (StopIteration, StopAsyncIteration, GeneratorExit)  # how a decorated generator ends
    if error is None or is_exit or isinstance(error, ends):
        return "ok"
    try:
        message = str(error).strip().partition("\n")[0][:200]
    except Exception:  # its own __str__ fails
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


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


# ------------------------------------------------------------- values that JSON lacks


def encode(value: Any, name: str) -> Any:
    """Return `value` in JSON's types, so that `decode` gives it back with type and bits.

    Raises:
        TypeError: it is of a kind that cannot be kept. `name` says whose value it is.
    """
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int and abs(value) < 10**4000:  # Python writes no longer ones
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": _spell(value)}
    if isinstance(value, complex) and type(value) is complex:
        return {"$complex": [encode(value.real, name), encode(value.imag, name)]}
    if type(value) in (list, tuple):
        items = [encode(item, name) for item in value]
        return items if type(value) is list else {"$tuple": items}
    if type(value) is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item, name) for key, item in value.items()}
        return {"$dict": [[encode(k, name), encode(v, name)] for k, v in value.items()]}
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        dtype = str(value.dtype).removeprefix("torch.")
        if value.layout is torch.strided and not value.is_quantized and dtype in _TORCH_TYPES:
            return _encode_array("$torch", dtype, value, name)
    is_numpy = type(value) is np.ndarray or isinstance(value, np.generic)
    if is_numpy and value.dtype.isnative and value.dtype.name in _NUMPY_TYPES:
        return _encode_array("$numpy", value.dtype.name, value, name)
    raise TypeError(
        f"the log cannot keep {name}={_brief(value)} ({type(value).__name__}): it takes numbers, "
        "strings, lists, tuples, dicts, NumPy and torch numbers; convert it, with str(...) say"
    )


_COMMON_TYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
_NUMPY_TYPES = (*_COMMON_TYPES, "uint16", "uint32", "uint64")
_TORCH_TYPES = (*_COMMON_TYPES, "bfloat16")


def _encode_array(tag: str, dtype: str, array: Any, name: str) -> Any:
    # A Python float holds every bit of a narrower one, a scalar or a nested list of them.
    # NumPy tells a scalar from an array without dimensions.
    shape = {} if isinstance(array, np.generic) else {"shape": list(array.shape)}
    return {tag: dtype, "value": encode(array.tolist(), name), **shape}


def _brief(value: Any) -> str:
    try:
        return repr(value)[:200]
    except Exception:  # an integer of too many digits, or a repr that fails
        return "..."


def _spell(value: float) -> str:
    """A float that is not finite; a NaN with bits of its own by its 16 hexadecimal digits."""
    bits = struct.pack(">d", value).hex()
    return bits if value != value and bits != struct.pack(">d", math.nan).hex() else repr(value)


def decode(value: Any) -> Any:
    """Return what `encode` was given."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: decode(item) for key, item in value.items()}
    inside = value[tag]
    if tag == "$float":
        is_bits = len(inside) == 16
        return struct.unpack(">d", bytes.fromhex(inside))[0] if is_bits else float(inside)
    if tag == "$complex":
        return complex(*map(decode, inside))
    if tag == "$tuple":
        return tuple(map(decode, inside))
    if tag == "$dict":
        return {decode(key): decode(item) for key, item in inside}
    plain, shape = decode(value["value"]), value.get("shape", ())
    if tag == "$torch":
        return torch.tensor(plain, dtype=getattr(torch, inside)).reshape(shape)
    array = np.array(plain, dtype=inside)
    return array.reshape(shape) if "shape" in value else array[()]
