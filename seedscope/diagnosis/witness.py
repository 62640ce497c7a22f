"""Which line draws first from each source, and which values from outside a run asks for."""

from __future__ import annotations

import datetime
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager, nullcontext
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch

from ..sources.base import Source
from .places import Place, caller, callers, is_inner, is_installed

#: What functions in C return that no seed determines.
_OUTSIDE: dict[Any, str] = {
    time.time: "the time",
    time.time_ns: "the time",
    time.perf_counter: "the time",
    time.perf_counter_ns: "the time",
    time.monotonic: "the time",
    time.monotonic_ns: "the time",
    time.process_time: "the time",
    datetime.datetime.now: "the time",
    datetime.datetime.utcnow: "the time",
    datetime.datetime.today: "the time",
    os.urandom: "the operating system's entropy",
    id: "an address",
    os.listdir: "files",
    os.scandir: "files",
    os.stat: "files",
    open: "files",
}
# Modules of Python through which a program asks for them. All others ask for reasons of their own.
_THROUGH = (
    *(
        "random",
        "uuid",
        "secrets",
        "datetime",
        "pathlib",
        "glob",
        "genericpath",
        "torch.serialization",
    ),
)


_PATIENCE_S = 1.0  # for all looks at the sources


class Witness:
    """What a run has drawn and asked for, each with the line outside of torch and Python.

    Attributes:
        drawn: the place of the first draw from each source, by its name.
        seeded: the places where a source was seeded, by its name.
        asked: what was asked for, by place, in the order of the first times.
        is_cut: whether the program has too many lines to look after each of them.
        is_blind: whether a debugger or a coverage tool is in the way, so that nothing was seen.
    """

    def __init__(self) -> None:
        self.drawn: dict[str, Place] = {}
        self.seeded: dict[str, Place] = {}
        self.asked: dict[Place, str] = {}
        self.is_blind: bool = False
        self.is_cut: bool = False
        self._is_over = False
        self._patience_s = _PATIENCE_S
        self._paused: Callable[[], Any] = nullcontext
        self._sources: list[Source] = []
        self._states: list[Any] = []
        self._seeds: dict[CodeType, str] = {}
        self._line: Place | None = None

    @contextmanager
    def watching(self, sources: Iterable[Source], paused: Callable[[], Any]) -> Any:
        """Watch the sources, and what the block asks for, in this thread.

        A look at a source runs in `paused()`.
        """
        self._paused = paused
        if sys.gettrace() is not None or sys.getprofile() is not None:
            self.is_blind = True
            yield
            return
        self._sources = [source for source in sources if _can_be_read(source)]
        self._states = [source.capture() for source in self._sources]
        self._seeds = _seeding_functions()
        sys.setprofile(self._on_call)
        sys.settrace(self._on_frame)
        try:
            yield
        finally:
            sys.settrace(None)
            sys.setprofile(None)
            self._look()

    def stop_asking(self) -> None:
        """Leave out what is asked for from now on: it came after the difference."""
        self._is_over = True

    def _on_frame(self, frame: FrameType, event: str, _: Any) -> Any:
        """Follow the lines of code outside of torch, Python and installed libraries."""
        code = frame.f_code
        if (name := self._seeds.get(code)) is not None:
            if (place := caller(frame)) is not None:
                self.seeded.setdefault(name, place)
        elif not (is_inner(code) or is_installed((code, 0))):
            return self._on_line
        return None

    def _on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        self._look()
        if event == "line":
            self._line = frame.f_code, frame.f_lasti
        elif event == "return":
            self._line = caller(frame.f_back)
        return self._on_line

    def _look(self) -> None:
        """Note which sources the last line has drawn from."""
        if not self._sources:
            return
        began = time.perf_counter()
        with self._paused():
            for number, source in enumerate(self._sources):
                present = source.capture()
                if not source.same(present, self._states[number]):
                    self._states[number] = present
                    if self._line is not None:
                        self.drawn.setdefault(source.name, self._line)

        self._patience_s -= time.perf_counter() - began
        if self._patience_s < 0:  # a loop of many lines
            self._sources, self.is_cut = [], True

    def _on_call(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or self._is_over:
            return
        try:
            what = _OUTSIDE.get(function)
        except TypeError:  # a function that cannot be hashed
            return
        if what is not None and _is_asked(frame):
            stack = callers(frame)
            if stack:
                own = (place for place in stack if not is_installed(place))
                self.asked.setdefault(next(own, stack[0]), what)


def _is_asked(frame: FrameType) -> bool:
    """Return whether a program asks, by itself or through a module of Python."""
    return frame.f_globals.get("__name__") in _THROUGH or not is_inner(frame.f_code)


def _can_be_read(source: Source) -> bool:
    try:
        return source.capture() is not None
    except Exception:  # such as SystemRandom, which has no state
        return False


def _seeding_functions() -> dict[CodeType, str]:
    """Return the code of what seeds a source, as a scope has it while it is open."""
    functions = {
        random.seed: "python",
        np.random.seed: "numpy",
        torch.manual_seed: "torch",
        torch.seed: "torch",
    }
    return {
        function.__code__: name
        for function, name in functions.items()
        if hasattr(function, "__code__")
    }
