"""One seeded block: the entry captures and changes states, the exit restores them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..seeds import derive_seed
from ..settings.registry import SETTINGS, values_for
from ..snapshots import RestoreError, capture_all, restore_all
from ..sources.base import Source, fingerprints
from ..sources.registry import select_sources
from ..support.compiler import opaque
from . import open_scopes
from .advice import explain
from .open_scopes import ScopeConflictError
from .options import Options

if TYPE_CHECKING:
    from ..runs.recorder import Recorder
else:
    Recorder = Any  # for `get_type_hints`, because the recorder is imported by the first log

S = TypeVar("S", bound="Scope")


class Scope:
    """One seeded block, as `with seeded(...) as scope` returns it.

    Attributes:
        seed: the seed of the block, given or drawn.
    """

    __slots__ = (
        "__weakref__",
        "_changes",
        "_fingerprints",
        "_inner",
        "_options",
        "_outer",
        "_resumes",
        "_values",
        "opener",
        "recorder",
        "seed",
        "task",
        "thread",
    )

    def __init__(
        self,
        seed: int,
        options: Options,
        opener: Any = None,
        resumes: bool = False,
        inner: dict[Any, Any] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.seed: int = seed
        self.recorder: Recorder | None = recorder
        self._options = options
        self.opener: Any = opener
        self._resumes = resumes
        self.thread: int | None = None
        self.task: Any = None
        self._outer: dict[Any, Any] | None = None  # the states to restore on exit
        self._inner = inner or {}  # the states at the last exit, if the block resumes
        self._changes: dict[str, Any] = {}  # the settings that a block that resumes has changed
        self._values: Mapping[str, Any] = {}  # the settings that the entry has applied
        self._fingerprints: dict[Source, Any] = {}  # at the last exit, for used()

    @property
    def is_open(self) -> bool:
        return self._outer is not None

    @opaque
    def used(self) -> tuple[str, ...]:
        """Return the names of the sources that the block has drawn from so far.

        A source counts if its state differs from the freshly seeded state: also if the block
        itself has seeded the source. The source `unseeded` counts once a generator was made.
        After the end of the block the answer stays. Draws in other processes, such as a
        loader's workers, do not count. Call the method in the block's own thread: the method
        seeds each source for a moment, to compare.
        """
        states = self.states() if self.is_open or self._inner else {}
        sources = list(states or self._fingerprints)
        now = capture_all(sources)
        try:
            restore_all(states)
            prints = fingerprints(sources) if states else self._fingerprints
            for source in sources:
                source.seed(self.seed)
            fresh = fingerprints(sources)
        finally:
            restore_all(now)
        return tuple(
            source.name
            for source in sources
            # None: the source is missing, or its device was not started.
            if prints[source] is not None and not source.same(prints[source], fresh[source])
        )

    @opaque
    def states(self) -> dict[Source, Any]:
        """Return the state of each source of the block.

        In an open block, the present state; in a closed block that resumes, the state at the
        last exit; else the state that the seed gives.
        """
        if self.is_open:
            states = capture_all(self._governed())
            for scope in reversed(open_scopes.entered_later(self)):
                # To this block, a source of an inner block has the state that the inner
                # block will restore.
                states |= {s: x for s, x in (scope._outer or {}).items() if s in states}
            return states
        if self._inner:
            return dict(self._inner)
        sources = select_sources(self._options.sources)
        now = capture_all(sources)
        try:
            for source in now:
                source.seed(self.seed)
            return capture_all(now)
        finally:
            restore_all(now)

    def resume_from(self, states: dict[Source, Any]) -> None:
        """Let the next entry continue from `states`, which a block that resumes has returned."""
        self._inner = dict(states)

    def derive(self, *keys: int | str) -> int:
        """Return a seed derived from this scope's seed and `keys`: see `derive_seed`."""
        return derive_seed(self.seed, *keys)

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
        if self._outer is None:
            raise RuntimeError(f"{self!r} cannot note {', '.join(values)}: the block is not open")
        if self.recorder is not None:
            self.recorder.note(values)

    def share(self) -> None:
        """Let every thread and task open scopes inside this scope, which then belongs to none."""
        thread, self.thread = self.thread, None
        open_scopes.release(thread)

    def finish(self) -> None:
        """Log that the body of a decorated generator or coroutine has ended."""
        if self.recorder is not None:
            self.recorder.end()

    def __repr__(self) -> str:
        return f"<Scope of seed {self.seed}, {'open' if self._outer is not None else 'closed'}>"

    @opaque
    def __enter__(self: S) -> S:
        thread = threading.get_ident()
        is_open = True  # until this call opens the scope, so that a failure closes no other entry
        try:
            open_scopes.hold(self, thread, self._options.waits)
            is_open = open_scopes.is_listed(self)
            if is_open:
                raise ScopeConflictError(f"{self!r} is already open: it cannot be entered twice")
            self.thread, self.task = thread, open_scopes.current_task()
            open_scopes.add(self)
            # Capture everything before the first change, so that a failure from here on is
            # undone below.
            self._outer = outer = capture_all(self._options.governed())
            self._begin(outer)
            if self.recorder is not None:
                self.recorder.begin()
            return self
        except BaseException:
            if open_scopes.is_held_by(thread):
                if not is_open:
                    self.close()
                open_scopes.release(thread)
            raise

    @opaque
    def __exit__(self, *raised: Any) -> None:
        if self._outer is None:
            raise RuntimeError(f"{self!r} was left without having been entered")
        try:
            if raised[1] is not None:
                explain(raised[1])
            settings = None
            if self._resumes:
                settings = self._keep_changes()
                self._inner = self.states()
            elif not open_scopes.entered_later(self):
                # A fingerprint may move sources that a later scope still draws from.
                self._fingerprints = fingerprints(self._governed())
            self.close(settings=settings)
        except BaseException:
            self.close(again=True)  # finish the restore, even if Ctrl-C interrupted it
            raise
        finally:
            if self.recorder is not None:
                self.recorder.leave(raised[1])
                if not self._resumes:
                    self.recorder.end()

    def _begin(self, outer: dict[Any, Any]) -> None:
        """Seed the sources and apply the settings in `outer`, or resume where the block stopped."""
        seed, inner = self.seed, self._inner
        if SETTINGS in outer:
            self._apply(outer[SETTINGS])
        for source in self._governed():
            if source in inner:
                source.resume(seed, inner[source])
            else:
                source.seed(seed)

    def _apply(self, outer: list[Any]) -> None:
        """Apply the settings of the options, and those that the block itself has changed."""
        options = self._options
        self._values = values_for(options.deterministic, options.fill, self.seed)
        if self._changes:
            self._values = {**self._values, **self._changes}
            SETTINGS.restore(SETTINGS.merged(outer, self._values), outer)
        else:
            SETTINGS.apply(self._values, outer)

    def _keep_changes(self) -> list[Any] | None:
        """Keep the settings that the block has changed, for the next entry.

        Return the present settings, or None if this block will not restore them.
        """
        assert self._outer is not None
        if SETTINGS not in self._outer:  # not governed, or an outer block was left before
            return None
        now = of_block = SETTINGS.capture()
        for scope in reversed(open_scopes.entered_later(self)):
            # As this block would have them again.
            of_block = (scope._outer or {}).get(SETTINGS, of_block)
        applied = SETTINGS.merged(self._outer[SETTINGS], self._values)
        self._changes |= SETTINGS.changes(applied, of_block)
        return now

    def _governed(self) -> list[Source]:
        assert self._outer is not None
        return [thing for thing in self._outer if thing is not SETTINGS]

    def close(self, again: bool = False, settings: list[Any] | None = None) -> None:
        """Restore the outer state, and let other threads open scopes. Every exit ends here.

        Safe to repeat. With `again`, an interrupt no longer stops the close: for a second try.
        `settings` are the present ones, if they were just captured.
        """
        later = open_scopes.entered_later(self)
        failure: BaseException | None = None
        if self._outer is not None:
            for scope in later:
                scope._take_over(self._outer)
            try:
                restore_all(self._outer, settings)
            except RestoreError as error:
                failure = error
            except BaseException as error:
                if not again:
                    raise
                failure = error
            self._outer = None
        open_scopes.remove(self)
        open_scopes.release(self.thread)
        if failure is not None:
            raise failure
        if later:
            raise ScopeConflictError(
                f"{self!r} was left while {later[0]!r}, entered later, is still open: the two "
                "blocks have drawn from the same sources. The outer state is safe, and is restored "
                "when both are left. Decorate a generator with @seeded(...) instead of holding a "
                "`with` open over its yields."
            )

    def _take_over(self, outer: dict[Any, Any]) -> None:
        """Move from `outer` the states that this block governs too; its exit will restore them."""
        if self._outer is not None:
            for thing in [thing for thing in outer if thing in self._outer]:
                self._outer[thing] = outer.pop(thing)
