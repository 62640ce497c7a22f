"""One run of the diagnosed function, in a scope of the seed, and what is written down of it."""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ..data.search import Search
from ..scope.seeded import seeded
from ..sources.registry import select_sources
from ..support.modes import Deterministic
from ..support.remarks import remark
from .capture import Namer, Prober, Taker
from .keeping import Kept, can_keep
from .outcome import Outcome
from .places import is_inner
from .places import shown as shown_place
from .reach import Reached, reach
from .regions import seen_regions
from .trace import Tables, Trace
from .tracer import Tracer
from .witness import Witness

_PATIENCE_S = 2.0  # after which a run is announced


@dataclass
class Run:
    """One run.

    Attributes:
        trace: its operations.
        outcome: what the function returned; empty after an error.
        error: the exception and its place, empty if there was none.
        reached: what the function could reach at the start.
        used: the names of the sources that it has drawn from.
        reseeded: the names of the sources that were seeded inside, with another seed.
        uncompared: the types of what has no bits to compare.
        regions: the number of compiled regions that ran.
        seconds: how long it took.
        first_draw: the operation that drew first from torch's generator, and its line; or empty.
    """

    trace: Trace
    outcome: Outcome
    error: str
    reached: Reached
    used: tuple[str, ...]
    reseeded: tuple[str, ...]
    uncompared: set[str]
    regions: int
    seconds: float
    first_draw: str


class Bare(NamedTuple):
    """A run that nothing looked at: what it returned and left, its error, and its seconds."""

    outcome: Outcome
    error: str
    seconds: float


class Program:
    """A function with its arguments, its seed, and what is put back before each run."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seed: int,
        restore: Iterable[Any],
        deterministic: Deterministic,
    ) -> None:
        self.function: Callable[..., Any] = function
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        self.seed: int = seed
        self.deterministic: Deterministic = deterministic
        self.restored: list[Any] = [*restore]
        self.names: dict[str, Any] = _names(function, args, kwargs)
        self.kept: Kept = self.keep(self.restored)
        self.tables: Tables = Tables()
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self._has_run = False
        self._began = time.perf_counter()

    def run(
        self,
        what: str,
        focus: Mapping[int, Taker | Namer] | None = None,
        always: Prober | None = None,
        witness: Witness | None = None,
        kept: Kept | None = None,
        **options: Any,
    ) -> Run:
        """Run the function once; `options` are those of `seeded`."""
        if time.perf_counter() - self._began > _PATIENCE_S:
            remark(f"diagnose: {what}")
        args, kwargs = self._prepared(kept or self.kept)
        reached = reach(self.function, self.names, self.kept.storages())
        options = {"deterministic": self.deterministic} | options
        tracer = Tracer(self.tables, focus, always)
        for look in (*(focus or {}).values(), always):
            if look is not None:
                look.reached = reached
        result, error = None, ""
        with seeded(self.seed, **options) as scope:
            sources = [*select_sources(), *reached.generators.values()]
            watching = witness.watching(sources, tracer.paused) if witness else nullcontext()
            began = time.perf_counter()
            try:
                with seen_regions(tracer), tracer, watching:
                    result = self.function(*args, **kwargs)
            except Exception as raised:
                error = _described(raised)
            seconds = time.perf_counter() - began
            used, reseeded = scope.used(), scope.reseeded
        outcome = Outcome(result, self.restored)
        uncompared = tracer.uncompared | outcome.uncompared
        return Run(
            tracer.finish(),
            outcome,
            error,
            reached,
            used,
            reseeded,
            uncompared,
            tracer.regions,
            seconds,
            _first_draw(tracer, reached),
        )

    @property
    def is_in_step(self) -> bool:
        """Whether other processes take part in each run, so that all have to run equally often."""
        distributed = torch.distributed
        is_on = distributed.is_available() and distributed.is_initialized()
        return is_on and distributed.get_world_size() > 1

    def modules(self) -> list[nn.Module]:
        """Return the modules that the function can reach."""
        root = {**self.names, f"{self.name}()": self.function}
        return [thing for _, thing in Search(root, "") if issubclass(type(thing), nn.Module)]

    def can_keep(self, thing: Any) -> bool:
        """Return whether `keep` can keep a thing."""
        if not isinstance(thing, Iterator):
            return can_keep(thing)
        try:
            self.keep([thing])
        except TypeError:
            return False
        return True

    def keep(self, things: list[Any]) -> Kept:
        """Return what puts things back before a run, besides those of `restore`."""
        return Kept(things, (*self.args, *self.kwargs.values()))

    def run_bare(self, **options: Any) -> Bare:
        """Run the function once, as it runs when nothing looks at it."""
        args, kwargs = self._prepared(self.kept)
        result, error = None, ""
        with seeded(self.seed, **({"deterministic": self.deterministic} | options)):
            _wake_threads()
            began = time.perf_counter()
            try:
                result = self.function(*args, **kwargs)
            except Exception as raised:
                error = _described(raised)
            _synchronize()
            seconds = time.perf_counter() - began
        return Bare(Outcome(result, self.restored), error, seconds)

    def _prepared(self, kept: Kept) -> tuple[list[Any], dict[str, Any]]:
        """Put the kept states back, and return the arguments for a run; the first needs nothing."""
        if self._has_run:
            self.kept.restore()
        self._has_run = True
        if kept is not self.kept:
            kept.restore()

        def given(argument: Any) -> Any:
            return kept.given(self.kept.given(argument))

        return [*map(given, self.args)], {name: given(one) for name, one in self.kwargs.items()}


def _first_draw(tracer: Tracer, reached: Reached) -> str:
    if tracer.first_draw is None:
        return ""
    operation, place, holder = tracer.first_draw
    inside = "" if holder is None else f" in {reached.name_of(holder)}"
    return f"{operation}{inside}, {shown_place(place)}"


def _names(function: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments by the names of the parameters."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function of C
        return {**{f"argument {i}": one for i, one in enumerate(args)}, **kwargs}
    try:
        return dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        name = getattr(function, "__name__", repr(function)[:100])
        raise TypeError(f"{name}{signature} is not given its arguments: {error}") from None


def _described(error: Exception) -> str:
    frames = [*traceback.walk_tb(error.__traceback__)]
    places = [(f.f_code, f.f_lasti) for f, _ in frames if not is_inner(f.f_code)]
    where = f", at {shown_place(places[-1])}" if places else ""
    try:
        text = str(error).partition("\n")[0][:200]
    except Exception:
        text = "(its text cannot be read)"
    return f"{type(error).__name__}{': ' * bool(text)}{text}{where}"


def _wake_threads() -> None:
    """Wake torch's threads: those that wake up too late for a race do not show it."""
    torch.zeros(2**18).add_(1)


def _synchronize() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
