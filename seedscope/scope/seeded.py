"""`seeded`: a block with known sources of random numbers and known settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any, ForwardRef, TypeVar, overload

from ..seeds import check_seed
from ..support.compiler import opaque
from ..support.modes import Deterministic
from .open_scopes import innermost_first
from .opener import Opener
from .options import Options, Threads
from .position import Position
from .scope import Scope
from .wrapping import is_decorable

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
    for block in innermost_first():
        if block.recorder is not None:
            block.recorder.note(values)
            return
    names = ", ".join(values)
    warnings.warn(f"note(): no run is being logged, so {names} was not kept", stacklevel=2)


@opaque
def current_scope() -> Scope | None:
    """Return the innermost open scope, or None.

    For code that does not have its scope at hand: `current_scope().derive("fold", 3)`. A block
    of `isolated()` has no seed, and is no scope.
    """
    scopes = (block for block in innermost_first() if isinstance(block, Scope))
    return next((scope for scope in scopes if scope.is_open), None)


class Seeded(Opener[Scope]):
    """The context manager and decorator that `seeded(...)` returns.

    A `Seeded` can be entered again, also inside itself. Each entry starts anew from the
    seed, or from a fresh seed if none was given.
    """

    def __init__(self, seed: Any, options: Options) -> None:
        self._seed = None if seed is None else check_seed(seed)
        self._options = options

    def __repr__(self) -> str:
        return f"seeded({'' if self._seed is None else self._seed})"

    def _block(self, opener: Opener[Scope] | None, resumes: bool) -> Scope:
        return Scope(self._seed, self._options, opener, Position() if resumes else None)


@overload
def seeded(
    seed: int | None = None,
    *,
    deterministic: Deterministic = True,
    replacements: bool = True,
    fill_uninitialized_memory: bool | None = None,
    threads: Threads = "raise",
    sources: Iterable[str] | None = None,
    log: RunLog | str | PathLike[str] | None = None,
    independent: bool = False,
) -> Seeded: ...


@overload
def seeded(function: F, /) -> F: ...


@opaque
def seeded(
    seed: Any = None,
    *,
    deterministic: Deterministic = True,
    replacements: bool = True,
    fill_uninitialized_memory: bool | None = None,
    threads: Threads = "raise",
    sources: Iterable[str] | None = None,
    log: RunLog | str | PathLike[str] | None = None,
    independent: bool = False,
) -> Any:
    """Return a scope for a block or a function: inside, results repeat; outside, nothing changes.

    Use the scope as a context manager (`with seeded(1029) as scope:`), or as a decorator of a
    function, a method, a generator function or a coroutine function; also bare, as `@seeded`.
    On exit every governed source and setting is bit for bit what it was before.

    Args:
        seed: an integer in [0, 2**64). `None` draws a fresh seed for each entry or call, inside
            another scope from that scope, else from the operating system;
            `with seeded() as scope:` has that seed as `scope.seed`. Up to 2**32 - 1 the sources
            give the numbers of `random.seed`, `np.random.seed` and `torch.manual_seed`. The
            price is that NumPy and torch then draw from equal words: see `independent`.
        deterministic: `True` switches to deterministic algorithms. An operation without one is
            replaced, or raises. With `"warn"` it warns and runs. `"cudnn"` only turns
            cuDNN's benchmark off and its deterministic flag on. `False` leaves all settings as
            they are: inside another scope, as that scope has set them.
        replacements: whether operations without a deterministic algorithm run in one of
            seedscope's, where there is one, instead of raising: see `Scope.replaced`. `True` acts
            only with `deterministic=True`; with `"cudnn"` and `False` it leaves this as the scope
            around has it.
        fill_uninitialized_memory: whether `torch.empty` fills its memory while deterministic
            algorithms are on. `None` leaves the setting unchanged. `False` saves time, and is
            safe if no uninitialised memory is read.
        threads: `"raise"` refuses to enter while another thread or asyncio task holds a
            scope. `"wait"` waits for other threads.
        sources: names of the sources to govern. All by default.
        log: a `RunLog` or a path. The scope appends a line when the block begins and one when
            the block ends, with the seed, the conditions and the notes.
        independent: `True` gives each source a seed of its own, derived from `seed` and the
            source's name. With `False` NumPy and torch, which are the same generator, agree
            wherever they draw alike: `np.random.randint(2)` and `torch.randint(2, ())` are equal
            in each draw.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value. Nothing was changed.
        ScopeConflictError: on entry, if another thread or asyncio task holds a scope.
        RestoreError: on exit, if a source or setting could not be restored.

    See: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    options = Options(
        deterministic, fill_uninitialized_memory, threads, sources, log, independent, replacements
    )
    if is_decorable(seed):  # a bare @seeded
        return Seeded(None, options)(seed)
    return Seeded(seed, options)
