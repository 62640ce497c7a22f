"""`Scope`: a seeded block, and what it tells of itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import repeat
from types import NoneType
from typing import TYPE_CHECKING, Any

from ..replacements.counts import REFUSED, What, since, totals
from ..seeds import derive_seed, source_seeds
from ..snapshots import capture_all, restore_all
from ..sources.base import Source, fingerprints
from ..sources.registry import UNSEEDED
from ..sources.seen import Seen
from ..support.compiler import opaque
from ..support.remarks import level_of_the_user
from . import open_scopes
from .advice import WORKERS
from .block import Block
from .options import Options
from .position import Position

if TYPE_CHECKING:
    from ..runs.recorder import Recorder
else:
    Recorder = Any  # for `get_type_hints`: the first log imports the recorder

_NORMAL_ENDS = (NoneType, StopIteration, StopAsyncIteration, GeneratorExit, SystemExit)


class Scope(Block):
    """One seeded block, as `with seeded(...) as scope` returns it.

    Attributes:
        seed: the seed of the block, given or drawn.
    """

    __slots__ = (
        "_fingerprints",
        "_follows",
        "_replaced",
        "_replaced_before",
        "_reseeded",
        "is_fresh",
        "recorder",
        "seed",
    )

    seed: int
    is_seeded = True

    def __init__(
        self,
        seed: int | None,
        options: Options,
        opener: Any = None,
        position: Position | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__(options, opener, position)
        self.is_fresh: bool = seed is None
        if seed is not None:
            self.seed = seed
        self.recorder: Recorder | None = recorder
        self._fingerprints: dict[Source, Any] = {}  # at the last exit, for used()
        self._reseeded: dict[str, Any] = {}  # at the last exit
        self._replaced: Mapping[What, int] = {}  # at the last exit
        self._replaced_before: Mapping[What, int] = {}  # in the process, at the last entry
        self._follows = False  # whether the seed follows from a scope around

    @opaque
    def used(self) -> tuple[str, ...]:
        """Return the names of the sources that the block has drawn from so far.

        A source counts if its state differs from the freshly seeded state: also if the block
        itself has seeded the source. The source `unseeded` counts once a generator was made, or
        a scope without a seed was entered. After the end of the block the answer stays. Draws in
        other processes, such as a loader's workers, do not count. Call the method in the block's
        own thread: the method seeds each source for a moment, to compare.
        """
        states = self.states()
        sources = list(states or self._fingerprints)
        now = capture_all(sources)
        try:
            restore_all({**states})
            prints = fingerprints(sources) if states else self._fingerprints
            for source, seed in self._seeds(sources):
                source.seed(seed)
            fresh = fingerprints(sources)
        finally:
            restore_all(now)
        return tuple(
            source.name
            for source in sources
            # None: the source is missing, or its device was not started.
            if prints[source] is not None and not source.same(prints[source], fresh[source])
        )

    @property
    def reseeded(self) -> tuple[str, ...]:
        """The names of the sources that other code in the block has seeded, with another seed.

        If that seed is a fixed one, what the block draws from the source does not follow the
        scope's seed. The scope's own seed and seeds that its `derive` has returned are not
        counted, and neither are states that are restored, as by a trainer that resumes.
        """
        now = {}
        if self.is_open and not open_scopes.entered_later(self):
            now = self._seen.reseeded()
        return tuple(sorted({**self._reseeded, **now}))

    @property
    def replaced(self) -> dict[str, int]:
        """How often each operation that torch cannot repeat has run in seedscope's form so far.

        The keys are torch's names, such as `"aten::_adaptive_avg_pool2d_backward"`. One that ends
        in `" (unproved)"` counts calls whose replacement had not been compared with torch's own
        kernel: the inputs were all zero or not finite, or the memory was short. Calls of all
        threads count, while the block is open; those of other processes do not.
        """
        named: dict[str, int] = {}
        for what, count in sorted(self._replacements().items()):
            if what.state != REFUSED:
                name = what.operation + (f" ({what.state})" if what.state else "")
                named[name] = named.get(name, 0) + count
        return named

    def _replacements(self) -> Mapping[What, int]:
        return since(self._replaced_before, self._replaced) if self.is_open else self._replaced

    def derive(self, *keys: int | str) -> int:
        """Return a seed derived from this scope's seed and `keys`: see `derive_seed`."""
        seed = derive_seed(self.seed, *keys)
        self._seen.own(seed)
        return seed

    @property
    def run_id(self) -> str | None:
        """The id of the run in the run log, None without a log."""
        return None if self.recorder is None else self.recorder.id

    @opaque
    def note(self, **values: Any) -> None:
        """Add values, such as `loss=0.12`, to the run's notes in the run log.

        A name that was noted before gets the new value. Without a log nothing is kept.

        Raises:
            TypeError: the log cannot keep a value. A value can be a number, a string, a
                list, a tuple, a dict, or a number or array of NumPy or torch.
            RuntimeError: the block is not open.
        """
        if not self.is_open:
            raise RuntimeError(f"{self!r} cannot note {', '.join(values)}: the block is not open")
        if self.recorder is not None:
            self.recorder.note(values)

    def finish(self, error: BaseException | None) -> None:
        if self.recorder is not None:
            self._tell_recorder(error)
            self.recorder.end()

    def _tell_recorder(self, error: BaseException | None) -> None:
        assert self.recorder is not None
        replaced: dict[str, str] = {}
        for what in sorted(self._replaced):
            state = f"version {what.version}" + (f", {what.state}" if what.state else "")
            before = replaced.get(what.operation)
            replaced[what.operation] = state if before is None else f"{before}; {state}"
        self.recorder.leave(error, self._reseeded, replaced)

    def __repr__(self) -> str:
        seed = f"seed {self.seed}" if hasattr(self, "seed") else "a fresh seed"
        return f"<Scope of {seed}, {'open' if self.is_open else 'closed'}>"

    def _prepare(self) -> None:
        """Draw the seed of a fresh scope, and make the recorder. A replay has its run's seed."""
        is_drawn, self.is_fresh = self.is_fresh, False
        self._follows = self._follows or is_drawn
        if is_drawn:
            self.seed = UNSEEDED.scope_seed()  # follows from the scope around, if there is one
        elif self.position is not None and self.position.seed is not None:
            self.seed = self.position.seed
        if self.recorder is None and self._options.log is not None:
            self.recorder = self._options.recorder(self.seed, is_drawn=is_drawn)
            self.seed = self.recorder.seed
        self._seen.own(self.seed)

    def _start(self, sources: list[Source], states: dict[Source, Any]) -> None:
        self._replaced_before = totals()
        seeds = [*self._seeds(sources)]
        if self._options.independent:
            self._seen.own(*(seed for _, seed in seeds))
        for source, seed in seeds:
            if source in states:
                source.resume(seed, states[source])
            else:
                source.seed(seed)

    def _seeds(self, sources: list[Source]) -> Iterator[tuple[Source, int]]:
        """Return the seed of each source: the block's, or one of its own."""
        if not self._options.independent:
            return zip(sources, repeat(self.seed))
        seed_of = source_seeds(self.seed)
        return ((source, seed_of(source.name)) for source in sources)

    def _look(self) -> None:
        self._reseeded |= self._seen.reseeded()
        self._replaced = self._replacements()
        if self.position is None:
            # A fingerprint may move a source, which no later scope then draws from.
            self._fingerprints = fingerprints(self.sources())

    def end(self, error: BaseException | None) -> None:
        # Not what the watch has now: by now another thread may have the turn.
        if self._reseeded and self._follows and isinstance(around := self._seen.around, Seen):
            around.add(self._reseeded)  # the results of this block belong to the scope around
        if self.recorder is not None:
            self._tell_recorder(error)
            if self.position is None:
                self.recorder.end()
        # An error in the block is told instead.
        if self._seen.processes and isinstance(error, _NORMAL_ENDS):
            count, self._seen.processes = self._seen.processes, 0
            warnings.warn(WORKERS.format(count=count), stacklevel=level_of_the_user())
