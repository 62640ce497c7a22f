"""The recorder of a run in progress."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from ..settings.registry import SETTINGS
from ..support import conditions
from ..support.process_start import START_FOLDER
from .log import RunLog
from .process import Process
from .values import encode


class Recorder:
    """The recorder of a run: its seed, conditions and notes.

    With `log=None` nothing is written: the worker of a sweep returns its record instead. In a
    replay a seed that was drawn (`is_drawn`) gives way to that of the run replayed.
    """

    def __init__(
        self,
        log: RunLog | None,
        seed: int,
        *,
        is_drawn: bool = False,
        counted: bool = True,
        **more: Any,
    ) -> None:
        process = Process.this()
        # The seeds of a sweep have no ordinal: a replay matches the other runs by ordinal.
        self.ordinal: int | None = next(process.ordinals) if counted else None
        then = None if self.ordinal is None else process.replayed.get(self.ordinal)
        if is_drawn and then:
            seed = then.seed
        if then:
            more["replays"] = then.id
            log = process.replay_log if log else None
        self.seed: int = seed
        self.id: str = secrets.token_hex(6)
        self._log, self._process, self._clock = log, process, 0.0
        self._more = more
        self._begun: dict[str, Any] = {}
        self._ended: dict[str, Any] = {}
        self._is_written = False
        self._notes: dict[str, Any] = {}
        self._outcome: str | None = None
        self._reseeded: dict[str, Any] = {}
        self._replaced: dict[str, str] = {}

    def begin(self) -> None:
        """Record the time and conditions of the run, and append its first line, once."""
        if self._begun:
            return
        self._clock = time.perf_counter()
        process = self._process
        self._begun = {
            "id": self.id,
            "seed": self.seed,
            "began": datetime.now(UTC).isoformat(),
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
        """Add `values` to the run's notes.

        Raises:
            TypeError: the log cannot keep a value, or a name begins with `$`. Nothing was
                added.
        """
        if wrong := [name for name in values if name.startswith("$")]:
            raise TypeError(f"a note's name must not begin with $, got {wrong[0]!r}")
        self._notes |= {name: encode(value, name) for name, value in values.items()}

    def leave(
        self,
        error: BaseException | None,
        reseeded: Mapping[str, Any],
        replaced: Mapping[str, str],
    ) -> None:
        """Record the outcome of the block, which may be entered again."""
        self._outcome = outcome_of(error)
        self._reseeded, self._replaced = dict(reseeded), dict(replaced)

    def end(self) -> dict[str, Any]:
        """Append the run's second line, once, and return its record.

        Another call does what an interrupt has left undone, with the same line.
        """
        self._ended = record = self._ended or {
            **self._begun,
            "duration": time.perf_counter() - self._clock,
            "outcome": self._outcome,
            "devices": conditions.devices(),
            "notes": self._notes,
            "reseeded": self._reseeded,
            "replaced": self._replaced,
        }
        # In a forked child that leaves the block, the parent writes the record.
        if self._log and self._begun and not self._is_written and self._process.is_current():
            self._log.append("end", record)
            self._is_written = True
        return record


def outcome_of(error: BaseException | None) -> str:
    """Return `"ok"`, or the error's type and the first line of its message."""
    is_exit = isinstance(error, SystemExit) and error.code in (None, 0)
    ends = (StopIteration, StopAsyncIteration, GeneratorExit)  # normal ends of a generator
    if error is None or is_exit or isinstance(error, ends):
        return "ok"
    try:
        message = str(error).strip().partition("\n")[0][:200]
    except Exception:  # the error's __str__ raised
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
