"""`isolated`: a block that seeds nothing, and restores everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from ..sources.base import Source
from ..sources.seen import Seen
from ..support.compiler import opaque
from .block import Block
from .opener import Opener
from .options import Options, Threads
from .position import Position
from .wrapping import is_decorable

F = TypeVar("F", bound=Callable[..., Any])


class Isolation(Block):
    """A block whose sources begin as they are."""

    __slots__ = ()

    def _start(self, sources: list[Source], states: dict[Source, Any]) -> None:
        for source in sources:
            if source in states:
                source.resume(0, states[source])

    def end(self, error: BaseException | None) -> None:
        around = self._seen.around
        if isinstance(around, Seen):  # the seed of the scope around does not reach them either
            around.processes += self._seen.processes
        self._seen.processes = 0

    def __repr__(self) -> str:
        return f"<isolated block, {'open' if self.is_open else 'closed'}>"


class Isolated(Opener[Isolation]):
    """The context manager and decorator that `isolated()` returns. It can be entered again."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @opaque
    def __enter__(self) -> None:  # type: ignore[override]
        super().__enter__()

    def __repr__(self) -> str:
        return "isolated()"

    def _block(self, opener: Opener[Isolation] | None, resumes: bool) -> Isolation:
        return Isolation(self._options, opener, Position() if resumes else None)


@overload
def isolated(*, threads: Threads = "raise", sources: Iterable[str] | None = None) -> Isolated: ...


@overload
def isolated(function: F, /) -> F: ...


@opaque
def isolated(
    function: Any = None,
    /,
    *,
    threads: Threads = "raise",
    sources: Iterable[str] | None = None,
) -> Any:
    """Return a block that seeds nothing and changes no setting, and restores all of them.

    For a call of code that seeds sources or changes settings by itself: outside of the block,
    nothing happened. The block begins with the numbers that the caller would draw next. Use it
    as a context manager (`with isolated():`) or as a decorator, also bare (`@isolated`).

    Args:
        function: the function to decorate, for a bare `@isolated`.
        threads: as for `seeded`.
        sources: names of the sources to restore. All by default.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value. Nothing was changed.
        ScopeConflictError: on entry, if another thread or asyncio task holds a scope.
        RestoreError: on exit, if a source or setting could not be restored.
    """
    block = Isolated(Options(False, None, threads, sources))
    if function is None:
        return block
    if not is_decorable(function):
        raise TypeError(f"isolated() takes no seed, and got {function!r}: use seeded() with one")
    return block(function)
