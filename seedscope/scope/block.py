"""One block: the entry captures states and changes them, the exit restores them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, TypeVar

from ..settings.registry import SETTINGS, values_for
from ..snapshots import RestoreError, capture_all, restore_all
from ..sources.base import Source
from ..sources.seen import Seen
from ..sources.watch import WATCH
from ..support.compiler import opaque
from ..support.torch_internals import current_backward
from . import open_scopes, turns
from .advice import explain
from .guarded import Guarded, fail
from .open_scopes import ScopeConflictError
from .options import Options
from .position import Position, check_replays

B = TypeVar("B", bound="Block")


class Block(Guarded):
    """One block, from its entry to its exit. What its sources begin with is its subclass's."""

    __slots__ = (
        "__weakref__",
        "_changes",
        "_options",
        "_outer",
        "_seen",
        "_values",
        "backward",
        "course",
        "is_closing",
        "opener",
        "position",
        "task",
        "thread",
    )

    #: Whether the block seeds its sources, with `seed`.
    is_seeded: bool = False
    seed: int = 0
    #: Whether the next entry draws a seed.
    is_fresh: bool = False
    #: The recorder of the run, of a scope that has a log.
    recorder: Any = None

    def __init__(
        self, options: Options, opener: Any = None, position: Position | None = None
    ) -> None:
        self._options = options
        self.opener: Any = opener
        self.position: Position | None = position  # of a block that resumes
        self.thread: int | None = None
        self.task: Any = None
        self.backward: int | None = None  # the backward that has entered the block, or -1
        self.course: object = None  # that of the position, at the entry
        self.is_closing: bool = False  # whether the restore has begun
        self._outer: dict[Any, Any] | None = None  # the states to restore on exit
        self._changes: dict[str, Any] = {}  # the settings that a block that resumes has changed
        self._values: Mapping[str, Any] = {}  # the settings that the entry has applied
        self._seen = Seen()

    @property
    def is_open(self) -> bool:
        return self._outer is not None

    def governs(self, thing: Any) -> bool:
        """Return whether the block is open and will restore the source."""
        return self._outer is not None and thing in self._outer

    def sources(self) -> list[Source]:
        """Return the sources that the open block governs."""
        outer = [*(self._outer or ())]  # at once: another thread may ask, before it forks
        return [thing for thing in outer if isinstance(thing, Source)]

    @opaque
    def states(self) -> dict[Source, Any]:
        """Return the present state of each source; if closed, those at the last exit."""
        if not self.is_open:
            return {} if self.position is None else self.position.states
        states = capture_all(self.sources())
        for block in reversed(open_scopes.entered_later(self)):
            # To this block, a source of an inner block has the state that the inner block
            # will restore.
            states |= {s: x for s, x in (block._outer or {}).items() if s in states}
        return states

    def move_to(self, states: dict[Source, Any]) -> None:
        """Let the open block continue from `states`, once the blocks inside are left."""
        later = open_scopes.entered_later(self)
        for source in self.sources():
            inside = next((block._outer for block in later if block.governs(source)), None)
            if inside is not None and source in states:
                inside[source] = states[source]

    def share(self) -> None:
        """Let every thread and task open scopes inside this one, which then belongs to none."""
        thread, self.thread = self.thread, None
        open_scopes.release(thread)

    def wait_for_draws(self) -> None:
        """Wait until no draw of another thread runs: a capture takes the generators' locks."""
        capture_all(self.sources())

    def after_fork_in_child(self) -> None:
        """Belong to no thread, and leave it to the parent to tell of its processes."""
        self.thread = None
        self._seen.processes = 0

    @opaque
    def __enter__(self: B) -> B:
        thread = threading.get_ident()
        was_open = [True]  # until this call knows better, so that a failure closes no other entry
        try:
            self._join(thread, was_open)
            self._prepare()
            # Capture everything before the first change, so that a failure from here on is
            # undone below.
            self._outer = outer = capture_all(self._governed())
            self._begin(outer)
            if self.recorder is not None:
                self.recorder.begin()
            return self
        except BaseException as error:
            try:
                if not was_open[-1] and turns.has(thread):
                    try:
                        self.close()
                    finally:
                        self.end(error)
            finally:
                open_scopes.release(thread)
            fail(self, self.opener)
            raise

    def _join(self, thread: int, was_open: list[bool]) -> None:
        """Take the turn, and join the open blocks; add to `was_open` whether it was among them."""
        open_scopes.hold(self, thread, self._options.waits)
        was_open.append(open_scopes.is_listed(self))
        if was_open[-1]:
            raise ScopeConflictError(f"{self!r} is already open: it cannot be entered twice")
        backward = current_backward()
        if backward >= 0:
            check_replays(self, backward)
        self.backward = backward
        if self.position is not None:
            self.course = self.position.course
        self.thread, self.task = thread, open_scopes.current_task()
        self.is_closing = False
        open_scopes.add(self)

    def entered(self) -> list[Block]:
        return [self] if self.is_open or open_scopes.is_listed(self) else []

    @opaque
    def leave(self, error: BaseException | None) -> None:
        """Leave the block, which `error` has ended; if this fails, `close` follows."""
        if error is not None:
            explain(error)
        settings = None
        if self.position is not None:
            settings = self._keep_changes()
            self.position.keep(self)
        if not open_scopes.entered_later(self):
            self._look()
        self.close(settings=settings)

    def end(self, error: BaseException | None) -> None:
        """Do what follows the restore; `error` has ended the block."""

    def finish(self, error: BaseException | None) -> None:
        """Do what follows the body of a decorated generator or coroutine, which `error` ended."""

    def _governed(self) -> tuple[Any, ...]:
        """Return what the block captures and restores."""
        return self._options.governed()

    def _prepare(self) -> None:
        """Get ready, once the turn is taken: a thread that waits or is refused moves nothing."""

    def _begin(self, outer: dict[Any, Any]) -> None:
        """Begin, or resume where the block stopped; `outer` are the states just captured."""
        states = {} if self.position is None else self.position.now(entered=self)
        if WATCH in outer:
            WATCH.restore(self._seen)
        if SETTINGS in outer:
            self._apply(outer[SETTINGS])
        sources = self.sources()
        self._start(sources, states)
        self._seen.begin(sources, outer.get(WATCH, False))

    def _start(self, sources: list[Source], states: dict[Source, Any]) -> None:
        """Give the sources their first states in the block; `states` are those of the last exit."""
        raise NotImplementedError

    def _look(self) -> None:
        """Look at the sources before they are restored."""

    def _apply(self, outer: list[Any]) -> None:
        """Apply the settings of the options, and those that the block itself has changed."""
        options = self._options
        self._values = values_for(
            options.deterministic, options.fill, options.replacements, self.seed
        )
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
        for block in reversed(open_scopes.entered_later(self)):
            # As this block would have them again.
            of_block = (block._outer or {}).get(SETTINGS, of_block)
        applied = SETTINGS.merged(self._outer[SETTINGS], self._values)
        self._changes |= SETTINGS.changes(applied, of_block)
        return now

    @opaque
    def close(self, settings: list[Any] | None = None) -> None:
        """Restore the outer state, and let other threads open scopes. Every exit ends here.

        Safe to repeat: another call does what an interrupt has left undone. `settings` are the
        present ones, if they were just captured.
        """
        self.is_closing = True
        later = open_scopes.entered_later(self)
        failure: BaseException | None = None
        if self._outer is not None:
            for block in later:
                block._take_over(self._outer)
            try:
                restore_all(self._outer, settings)
            except RestoreError as error:
                failure = error
            except BaseException as error:
                if self._outer:
                    raise
                failure = error
            self._outer = None
        open_scopes.remove(self)
        try:
            open_scopes.release(self.thread)
        except RuntimeError as error:
            failure = failure or error
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None  # it has this frame in its traceback
        if later and later[0].thread not in (None, self.thread):
            raise ScopeConflictError(
                f"{self!r} was left while a backward in another thread has {later[0]!r} open: the "
                "results of both may be wrong. Let the thread that holds the block wait for the "
                "end of the backward."
            )
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
            move_shared(outer, self._outer)


def move_shared(states: dict[Any, Any], into: dict[Any, Any]) -> None:
    """Move what both have from `states` to `into`; an interrupted call can be repeated."""
    for thing in [thing for thing in states if thing in into]:
        into[thing] = states[thing]
        del states[thing]
