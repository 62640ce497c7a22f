"""`seeded`: a block in which every source of random numbers and every setting is known."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from . import stepping
from .seeds import check_seed, derive_seed, fresh_seed
from .settings import MODES, SETTINGS, values_for
from .snapshots import RestoreError, capture_all, restore_all
from .sources import select_sources
from .sources.base import Source, fingerprints, same_state
from .support.compiler import opaque

if TYPE_CHECKING:
    from .runs.log import RunLog
    from .runs.recorder import Recorder

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound="Scope")

Deterministic = bool | Literal["warn", "cudnn"]
Threads = Literal["raise", "wait"]


class ScopeConflictError(RuntimeError):
    """Two scopes would overlap that cannot both be right: the sources are process-wide."""


class Options:
    """What `seeded` and `Stream` take besides a seed, checked once."""

    __slots__ = ("deterministic", "fill", "log", "sources", "waits")

    def __init__(
        self,
        deterministic: Deterministic = True,
        fill_uninitialized_memory: bool | None = None,
        threads: Threads = "raise",
        sources: Iterable[str] | None = None,
        log: RunLog | str | PathLike[str] | None = None,
    ) -> None:
        # By identity: 1 equals True, and so does a whole array of ones.
        if not (
            deterministic is True
            or deterministic is False
            or (isinstance(deterministic, str) and deterministic in MODES)
        ):
            raise ValueError(
                f'deterministic must be True, "warn", "cudnn" or False, got {deterministic!r}'
            )
        fill = fill_uninitialized_memory
        if not (fill is None or fill is True or fill is False):
            raise ValueError(
                "fill_uninitialized_memory must be True, False or None (as it is set), "
                f"got {fill!r}"
            )
        if not (isinstance(threads, str) and threads in ("raise", "wait")):
            raise ValueError(f'threads must be "raise" or "wait", got {threads!r}')
        self.deterministic = deterministic
        self.fill = fill
        self.waits = threads == "wait"
        self.sources = None if sources is None else tuple(s.name for s in select_sources(sources))
        self.log = None if log is None else _as_log(log)

    def governed(self) -> tuple[Any, ...]:
        """What a scope with these options captures, changes and restores."""
        return (SETTINGS, *select_sources(self.sources))

    def recorder(self, seed: int | None, **more: Any) -> Recorder:
        """Return what is to be logged of a run with these options."""
        from .runs.recorder import Recorder

        return Recorder(self.log, seed, options=self.as_dict(), **more)

    def as_dict(self) -> dict[str, Any]:
        """The options that bear on what a block gives, as the log keeps them."""
        return {
            "deterministic": self.deterministic,
            "fill_uninitialized_memory": self.fill,
            "sources": None if self.sources is None else list(self.sources),
        }


def _as_log(log: RunLog | str | PathLike[str]) -> RunLog:
    from .runs.log import as_log

    return as_log(log)


# Open scopes, outermost first. All of them belong to the thread that has the turn, except
# those that a forked child inherited, whose thread is None.
_open: list[Scope] = []

# The thread that may open scopes, under the one key "thread", and a lock for each thread
# that waits. Each step below is one operation on a dict, a list or a lock, so that neither
# another thread nor Ctrl-C comes in between: a `with lock:` can be left without its release.
_turn: dict[str, int] = {}
_waiting: list[Any] = []

# Says without an exception that no event loop runs in this thread, which is nearly always
# so: 0.05 us, where the public `asyncio.current_task` raises in 0.9.
_running_loop: Any = getattr(asyncio, "_get_running_loop", None)


class Scope:
    """One seeded block, as `with seeded(...) as scope` gives it.

    Attributes:
        seed: the seed of the block, also where a fresh one was drawn.
    """

    __slots__ = (
        "__weakref__",
        "_inner",
        "_opener",
        "_options",
        "_outer",
        "_prints",
        "_recorder",
        "_resumes",
        "_task",
        "_thread",
        "seed",
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
        self.seed = seed
        self._recorder = recorder
        self._options = options
        self._opener = opener
        self._resumes = resumes
        self._thread: int | None = None
        self._task: Any = None
        self._outer: dict[Any, Any] | None = None  # what comes back on exit
        self._inner = inner or {}  # where a block that resumes stopped
        self._prints: dict[Source, Any] = {}  # of the sources at the last exit, for used()

    @property
    def is_open(self) -> bool:
        return self._outer is not None

    @opaque
    def used(self) -> tuple[str, ...]:
        """Return the names of the sources that the block has drawn from so far.

        A source counts once its state differs from the freshly seeded one: also after
        the block itself has seeded it, and `unseeded` once a generator was made. The
        answer stays after the end of the block. Draws in other processes, such as a
        loader's workers, do not count. Call it in the block's own thread: it seeds each
        source for a moment to compare.
        """
        states = self._states() if self.is_open or self._inner else {}
        sources = list(states or self._prints)
        now = capture_all(sources)
        try:
            restore_all(states)
            prints = fingerprints(sources) if states else self._prints
            for source in sources:
                source.seed(self.seed)
            fresh = fingerprints(sources)
        finally:
            restore_all(now)
        return tuple(
            source.name
            for source in sources
            # None: the source is not there, or its device was not started.
            if prints[source] is not None and not same_state(prints[source], fresh[source])
        )

    @opaque
    def _states(self) -> dict[Source, Any]:
        """Where each source of the block stands, stood when it was left, or will start."""
        if self.is_open:
            states = capture_all(self._governed())
            for scope in reversed(self._entered_later()):
                # What an inner block uses now is, for this one, where that will put it back.
                states |= {s: x for s, x in (scope._outer or {}).items() if s in states}
            return states
        if self._inner:
            return {thing: state for thing, state in self._inner.items() if thing is not SETTINGS}
        sources = select_sources(self._options.sources)
        now = capture_all(sources)
        try:
            for source in now:
                source.seed(self.seed)
            return capture_all(now)
        finally:
            restore_all(now)

    def derive(self, *keys: int | str) -> int:
        """Return a seed that follows from this scope's seed and `keys`: see `derive_seed`."""
        return derive_seed(self.seed, *keys)

    @property
    def run_id(self) -> str | None:
        """The id of the run in its log, None without one."""
        return None if self._recorder is None else self._recorder.id

    @opaque
    def note(self, **values: Any) -> None:
        """Add values, such as `loss=0.12`, to what the run log keeps of this run.

        A name that was noted before gets the new value. Without a log nothing is kept.

        Raises:
            TypeError: the log cannot keep a value: it takes numbers, strings, lists,
                tuples, dicts, and NumPy and torch numbers and arrays.
            RuntimeError: the block has ended, and its line is written.
        """
        if self._outer is None:
            raise RuntimeError(f"{self!r} cannot note {', '.join(values)}: its block is not open")
        if self._recorder is not None:
            self._recorder.note(values)

    def share(self) -> None:
        """Let every thread and task open scopes inside this one, which is then nobody's."""
        thread, self._thread = self._thread, None
        _end_turn(thread)

    def finish(self) -> None:
        """Log that the body of a decorated generator or coroutine has ended."""
        if self._recorder is not None:
            self._recorder.end()

    def __repr__(self) -> str:
        return f"<Scope of seed {self.seed}, {'open' if self._outer is not None else 'closed'}>"

    @opaque
    def __enter__(self: S) -> S:
        thread = threading.get_ident()
        is_open = True  # until this call is known to be the one that opens it
        try:
            if _turn.setdefault("thread", thread) != thread:
                self._wait_for_the_turn(thread)
            is_open = self in _open
            if is_open:
                raise ScopeConflictError(f"{self!r} is open already; it cannot be entered twice")
            self._thread, self._task = thread, _current_task()
            if _open:
                self._refuse_to_interleave(_open[-1])
            _open.append(self)
            # Captured as a whole before anything changes, so that whatever fails from
            # here on is undone below.
            self._outer = outer = capture_all(self._options.governed())
            self._begin(outer)
            if self._recorder is not None:
                self._recorder.begin()
            return self
        except BaseException:
            if _turn.get("thread") == thread:
                if not is_open:
                    self._leave()
                _end_turn(thread)
            raise

    @opaque
    def __exit__(self, *raised: Any) -> None:
        if self._outer is None:
            raise RuntimeError(f"{self!r} was left without having been entered")
        try:
            if raised[1] is not None:
                explain(raised[1])
            if self._resumes:
                settings = (SETTINGS,) if SETTINGS in self._outer else ()
                self._inner = {**capture_all(settings), **self._states()}
            elif not self._entered_later():  # a fingerprint may move what they still draw from
                self._prints = fingerprints(self._governed())
            self._leave()
        except BaseException:
            self._leave(again=True)  # does what is left to do, also after a Ctrl-C half-way
            raise
        finally:
            if self._recorder is not None:
                self._recorder.leave(raised[1])
                if not self._resumes:
                    self._recorder.end()

    def _begin(self, outer: dict[Any, Any]) -> None:
        """Seed and set what was captured in `outer`, or go on where the block has stopped."""
        seed, options, inner = self.seed, self._options, self._inner
        if SETTINGS in inner:
            SETTINGS.restore(inner[SETTINGS], outer[SETTINGS])
        elif SETTINGS in outer:
            SETTINGS.apply(values_for(options.deterministic, options.fill, seed), outer[SETTINGS])
        for source in self._governed():
            if source in inner:
                source.resume(seed, inner[source])
            else:
                source.seed(seed)

    def _entered_later(self) -> list[Scope]:
        """The scopes that were entered inside this one and are open still."""
        if not _open or _open[-1] is self or self not in _open:
            return []
        return _open[_open.index(self) + 1 :]

    def _governed(self) -> list[Source]:
        assert self._outer is not None
        return [thing for thing in self._outer if thing is not SETTINGS]

    def _leave(self, again: bool = False) -> None:
        """Put the outer state back and end the turn; safe to repeat, once with `again`."""
        later = self._entered_later()
        failure: BaseException | None = None
        if self._outer is not None:
            _hand_over(self._outer, later)
            try:
                restore_all(self._outer)
            except RestoreError as error:
                failure = error
            except BaseException as error:
                if not again:
                    raise
                failure = error
            self._outer = None
        if self in _open:
            _open.remove(self)
        _end_turn(self._thread)
        if failure is not None:
            raise failure
        if later:
            raise ScopeConflictError(
                f"{self!r} was left while {later[0]!r}, entered after it, is still open: its block "
                "has drawn from the other's sources. The outer state is safe and comes back when "
                "both are left. Decorate a generator with @seeded(...) instead of holding a "
                "`with` open over its yields."
            )

    def _wait_for_the_turn(self, thread: int) -> None:
        while (holder := _turn.setdefault("thread", thread)) != thread:
            if not self._options.waits:
                raise ScopeConflictError(_describe_conflict(self, holder, thread))
            woken = threading.Lock()
            woken.acquire()
            _waiting.append(woken)
            if "thread" in _turn:  # asked after the entry above, so no release is missed
                woken.acquire()

    def _refuse_to_interleave(self, outer: Scope) -> None:
        """Refuse a block that could interleave with another task's, held over an `await`.

        The scope of a decorated call cannot: it is closed wherever its body is suspended.
        """
        if self._opener is None or outer._thread is None or outer._task in (None, self._task):
            return
        assert self._thread is not None
        raise ScopeConflictError(_describe_conflict(self, outer._thread, self._thread))


def _end_turn(thread: int | None) -> None:
    """Let another thread have its turn, unless this one has scopes open."""
    if _turn.get("thread") != thread or any(scope._thread == thread for scope in _open):
        return
    _turn.pop("thread", None)
    while _waiting:
        with contextlib.suppress(IndexError):  # another thread was quicker
            _waiting.pop().release()


def _hand_over(outer: dict[Any, Any], later: list[Scope]) -> None:
    """Move to scopes that are still open what they govern too: they restore it."""
    for scope in later:
        for thing in list(outer):
            if scope._outer is not None and thing in scope._outer:
                scope._outer[thing] = outer.pop(thing)


def _current_task() -> Any:
    if _running_loop is not None and _running_loop() is None:
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _describe_conflict(scope: Scope, holder: int, thread: int) -> str:
    held = next((other for other in reversed(_open) if other._thread == holder), None)
    task = getattr(held, "_task", None)
    names = [thread.name for thread in threading.enumerate() if thread.ident == holder]
    where = f"thread {names[0] if names else holder}" + (f", {task.get_name()}" if task else "")
    advice = (
        "Decorate the coroutine functions with @seeded(...) instead of holding a `with` over "
        "an await: a decorated one has its scope open only while its body runs."
        if holder == thread
        else 'threads="wait" lets it wait its turn. In the backward of an autograd function, '
        "which may run in another thread, draw in forward() instead and keep the result with "
        "ctx.save_for_backward()."
    )
    return (
        f"{scope!r} cannot be entered: {held or 'another'!r} is open in {where}. Random sources "
        f"are process-wide, so the results of both would be wrong. {advice}"
    )


def explain(error: BaseException | None) -> None:
    """Say the ways on where an operation has no deterministic implementation."""
    if not isinstance(error, RuntimeError):
        return
    text = " ".join(arg for arg in error.args if isinstance(arg, str))
    if "CUBLAS_WORKSPACE_CONFIG" in text:
        note = (
            "seedscope: this version of torch reads CUBLAS_WORKSPACE_CONFIG at the first cuBLAS "
            "call of the process, which was before this block. `seedscope run SCRIPT` sets it "
            "before Python starts; so does CUBLAS_WORKSPACE_CONFIG=:4096:8 python SCRIPT"
        )
    elif "deterministic implementation" in text:
        note = (
            "seedscope: raised because the block has deterministic=True. Two ways on: replace the "
            'operation by one that repeats, or seeded(..., deterministic="warn"), with which it '
            "runs, warns, and may give another result each time."
        )
    else:
        return
    if note in "".join([*getattr(error, "__notes__", []), *map(str, error.args)]):
        return  # an inner scope has said it
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:  # Python 3.10
        error.args = (f"{text}\n{note}",)


def _after_fork_in_child() -> None:
    # The forking thread may go on inside its blocks and leave them; all other threads
    # are gone. What was inherited is nobody's, so that the child can open its own.
    _turn.clear()
    _waiting.clear()
    ident = threading.get_ident()
    _open[:] = [scope for scope in _open if scope._thread in (None, ident)]
    for scope in _open:
        scope._thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@opaque
def note(**values: Any) -> None:
    """Add values to what the run log keeps of the innermost open run that has one.

    For code that `seedscope run` or `sweep` runs, and that does not know its scope. Without
    such a run a warning says that nothing was kept.

    Raises:
        TypeError: the log cannot keep a value, see `Scope.note`.
    """
    for scope in reversed(_open):
        if scope._recorder is not None:
            return scope.note(**values)
    names = ", ".join(values)
    warnings.warn(f"note(): no run is being logged, so {names} was not kept", stacklevel=2)


class Seeded:
    """What `seeded(...)` returns: a context manager and a decorator.

    It may be entered again, also inside itself: each entry starts the same stream
    anew, or a fresh one if no seed was given.
    """

    def __init__(self, seed: Any, options: Options) -> None:
        self._seed = None if seed is None else check_seed(seed)
        self._options = options

    @opaque
    def __enter__(self) -> Scope:
        return self._scope(self).__enter__()

    @opaque
    def __exit__(self, *raised: Any) -> None:
        scope = None
        try:
            scope = self._opened()
            scope.__exit__(*raised)
        except BaseException:
            # Ctrl-C came before the scope's own exit had begun.
            (scope or self._opened())._leave(again=True)
            raise

    def _opened(self) -> Scope:
        """The innermost open scope that this object has entered."""
        for scope in reversed(_open):
            if scope._opener is self:
                return scope
        raise RuntimeError(f"{self!r} was left without having been entered")

    def __call__(self, function: F) -> F:
        return cast(F, stepping.wrap(function, self.for_call))

    def __repr__(self) -> str:
        return f"seeded({'' if self._seed is None else self._seed})"

    def for_call(self, args: Any, kwargs: Any, *, resumes: bool = False) -> Scope:
        """Return the scope of one call, as `stepping.wrap` asks for it."""
        return self._scope(None, resumes)

    def _scope(self, opener: Seeded | None, resumes: bool = False) -> Scope:
        options = self._options
        if options.log is not None:
            recorder = options.recorder(self._seed)
            return Scope(recorder.seed, options, opener, resumes, recorder=recorder)
        seed = fresh_seed() if self._seed is None else self._seed
        return Scope(seed, options, opener, resumes)


@overload
def seeded(
    seed: int | None = None,
    *,
    deterministic: Deterministic = True,
    fill_uninitialized_memory: bool | None = None,
    threads: Threads = "raise",
    sources: Iterable[str] | None = None,
    log: RunLog | str | PathLike[str] | None = None,
) -> Seeded: ...
@overload
def seeded(function: F, /) -> F: ...
@opaque
def seeded(
    seed: Any = None,
    *,
    deterministic: Deterministic = True,
    fill_uninitialized_memory: bool | None = None,
    threads: Threads = "raise",
    sources: Iterable[str] | None = None,
    log: RunLog | str | PathLike[str] | None = None,
) -> Any:
    """Return a scope for a block or a function: inside, it repeats; outside, nothing happened.

    As a context manager (`with seeded(1029) as scope:`) or a decorator of a function,
    a method, a generator function or a coroutine function; also bare, as `@seeded`. On
    exit every governed source and setting is bit for bit what it was before.

    Args:
        seed: an integer in [0, 2**64). `None` draws a fresh one for each entry or call;
            `with seeded() as scope:` finds it as `scope.seed`. Up to 2**32 - 1 the
            sources give what `random.seed`, `np.random.seed` and `torch.manual_seed` give.
        deterministic: `True` switches to deterministic algorithms, and an operation
            that has none raises; with `"warn"` it warns and runs; `"cudnn"` sets
            cuDNN's benchmark off and deterministic on, nothing more; `False` leaves all
            settings as they are, inside another scope as that one has set them.
        fill_uninitialized_memory: whether `torch.empty` fills its memory while
            deterministic algorithms are on; `None` leaves it as it is set. `False`
            saves time and is safe where no uninitialised memory is read.
        threads: `"raise"` refuses to enter while another thread or asyncio task holds
            a scope; `"wait"` waits for other threads.
        sources: names of the sources to govern; all by default.
        log: a `RunLog` or a path: the seed and what belongs to it are appended there
            when the block begins and when it ends.

    Raises:
        TypeError, ValueError: an argument is not one of these. Nothing was touched.
        ScopeConflictError: on entry, if another thread or asyncio task holds a scope.
        RestoreError: on exit, if a source or setting could not be put back.

    See: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    options = Options(deterministic, fill_uninitialized_memory, threads, sources, log)
    if stepping.is_decorable(seed):  # a bare @seeded
        return Seeded(None, options).__call__(seed)
    return Seeded(seed, options)
