"""`seeded`: a block with known sources of random numbers and known settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any, ForwardRef, TypeVar, cast, overload

from ..seeds import check_seed, fresh_seed
from ..support.compiler import opaque
from ..support.modes import Deterministic
from .open_scopes import innermost_first
from .options import Options, Threads
from .scope import Scope
from .wrapping import is_decorable, wrap

if TYPE_CHECKING:
    from ..runs.log import RunLog
else:
    import seedscope  # noqa: F401

    # `get_type_hints` imports the log by this name; the import of `seeded` must not.
    RunLog = ForwardRef("seedscope.RunLog")

F = TypeVar("F", bound=Callable[..., Any])


@opaque
def note(**values: Any) -> None:
    """Add values to the notes of the innermost open run that has a log.

    For code under `seedscope run` or `sweep`, which does not have its scope at hand. Outside
    of a logged run, a warning says that nothing was kept.

    Raises:
        TypeError: the log cannot keep a value, see `Scope.note`.
    """
    for scope in innermost_first():
        if scope.recorder is not None:
            scope.note(**values)
            return
    names = ", ".join(values)
    warnings.warn(f"note(): no run is being logged, so {names} was not kept", stacklevel=2)


class Seeded:
    """The context manager and decorator that `seeded(...)` returns.

    A `Seeded` can be entered again, also inside itself. Each entry starts anew from the
    seed, or from a fresh seed if none was given.
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
            (scope or self._opened()).close(again=True)
            raise

    def _opened(self) -> Scope:
        """Return the innermost open scope that this object has entered."""
        for scope in innermost_first():
            if scope.opener is self:
                return scope
        raise RuntimeError(f"{self!r} was left without having been entered")

    def __call__(self, function: F) -> F:
        return cast(F, wrap(function, self.for_call))

    def __repr__(self) -> str:
        return f"seeded({'' if self._seed is None else self._seed})"

    def for_call(self, args: Any, kwargs: Any, *, resumes: bool = False) -> Scope:
        """Return the scope of one call, as `wrap` requires."""
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
    """Return a scope for a block or a function: inside, results repeat; outside, nothing changes.

    Use the scope as a context manager (`with seeded(1029) as scope:`), or as a decorator of a
    function, a method, a generator function or a coroutine function; also bare, as `@seeded`.
    On exit every governed source and setting is bit for bit what it was before.

    Args:
        seed: an integer in [0, 2**64). `None` draws a fresh seed for each entry or call;
            `with seeded() as scope:` has that seed as `scope.seed`. Up to 2**32 - 1 the sources
            give the numbers of `random.seed`, `np.random.seed` and `torch.manual_seed`.
        deterministic: `True` switches to deterministic algorithms, and an operation without
            one raises. With `"warn"` such an operation warns and runs. `"cudnn"` only turns
            cuDNN's benchmark off and its deterministic flag on. `False` leaves all settings as
            they are: inside another scope, as that scope has set them.
        fill_uninitialized_memory: whether `torch.empty` fills its memory while deterministic
            algorithms are on. `None` leaves the setting unchanged. `False` saves time, and is
            safe if no uninitialised memory is read.
        threads: `"raise"` refuses to enter while another thread or asyncio task holds a
            scope. `"wait"` waits for other threads.
        sources: names of the sources to govern. All by default.
        log: a `RunLog` or a path. The scope appends a line when the block begins and one when
            the block ends, with the seed, the conditions and the notes.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value. Nothing was changed.
        ScopeConflictError: on entry, if another thread or asyncio task holds a scope.
        RestoreError: on exit, if a source or setting could not be restored.

    See: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    options = Options(deterministic, fill_uninitialized_memory, threads, sources, log)
    if is_decorable(seed):  # a bare @seeded
        return Seeded(None, options).__call__(seed)
    return Seeded(seed, options)
