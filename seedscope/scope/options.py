"""The options of `seeded` and `Stream` besides the seed."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from ..settings.registry import SETTINGS
from ..sources.registry import select_sources
from ..sources.watch import WATCH
from ..support.modes import MODES, Deterministic

if TYPE_CHECKING:
    from ..runs.log import RunLog
    from ..runs.recorder import Recorder

Threads = Literal["raise", "wait"]


class Options:
    """The options of `seeded` and `Stream` besides the seed, checked once."""

    __slots__ = ("deterministic", "fill", "independent", "log", "replacements", "sources", "waits")

    def __init__(
        self,
        deterministic: Deterministic = True,
        fill_uninitialized_memory: bool | None = None,
        threads: Threads = "raise",
        sources: Iterable[str] | None = None,
        log: RunLog | str | PathLike[str] | None = None,
        independent: bool = False,
        replacements: bool = True,
    ) -> None:
        # By identity: 1 equals True, and so does a whole array of ones.
        if not (
            deterministic is True
            or deterministic is False
            or (isinstance(deterministic, str) and deterministic in MODES.values())
        ):
            raise ValueError(
                f'deterministic must be True, "warn", "cudnn" or False, got {deterministic!r}'
            )
        fill = fill_uninitialized_memory
        if not (fill is None or fill is True or fill is False):
            raise ValueError(
                f"fill_uninitialized_memory must be True, False or None (unchanged), got {fill!r}"
            )
        if not (isinstance(threads, str) and threads in ("raise", "wait")):
            raise ValueError(f'threads must be "raise" or "wait", got {threads!r}')
        if not (independent is True or independent is False):
            raise ValueError(f"independent must be True or False, got {independent!r}")
        if not (replacements is True or replacements is False):
            raise ValueError(f"replacements must be True or False, got {replacements!r}")
        self.independent: bool = independent
        self.replacements: bool = replacements
        self.deterministic: Deterministic = deterministic
        self.fill: bool | None = fill
        self.waits: bool = threads == "wait"
        names = None if sources is None else tuple(s.name for s in select_sources(sources))
        self.sources: tuple[str, ...] | None = names
        self.log: RunLog | None = None if log is None else _as_log(log)

    def narrowed(self, sources: Iterable[str]) -> Options:
        """Return these options with other sources, and without a log."""
        return Options(**{**self.as_arguments(), "sources": sources})

    def governed(self) -> tuple[Any, ...]:
        """Return the settings and sources that a scope with these options captures and restores."""
        return (SETTINGS, *select_sources(self.sources), WATCH)

    def recorder(self, seed: int, **more: Any) -> Recorder:
        """Return the recorder of a run with these options."""
        from ..runs.recorder import Recorder

        return Recorder(self.log, seed, options=self.as_dict(), **more)

    def as_arguments(self) -> dict[str, Any]:
        """Return the arguments that make equal options, without the log."""
        return {**self.as_dict(), "threads": "wait" if self.waits else "raise"}

    def as_dict(self) -> dict[str, Any]:
        """Return the options that affect a block's results, as the run log keeps them."""
        options = {
            "deterministic": self.deterministic,
            "fill_uninitialized_memory": self.fill,
            "sources": None if self.sources is None else list(self.sources),
        }
        # Left out by default: the runs of older logs have no such options, and are the same runs.
        rare = {"independent": True} if self.independent else {}
        return {**options, **rare, **({} if self.replacements else {"replacements": False})}


def _as_log(log: RunLog | str | PathLike[str]) -> RunLog:
    from ..runs.log import as_log

    return as_log(log)
