"""What `seeded`, `Stream` and `isolated` have in common: each entry opens a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from ..support.compiler import opaque
from .block import Block
from .guarded import Guarded
from .open_scopes import of_opener
from .wrapping import wrap

F = TypeVar("F", bound=Callable[..., Any])
B = TypeVar("B", bound=Block)


class Opener(Guarded, Generic[B]):
    """A context manager and decorator that opens a block for each entry, call or step."""

    @opaque
    def __enter__(self) -> B:
        return self._block(self, resumes=False).__enter__()

    def entered(self) -> list[Block]:
        return of_opener(self)

    def __call__(self, function: F) -> F:
        return cast(F, wrap(function, self.for_call))

    def for_call(self, args: Any, kwargs: Any, *, resumes: bool = False) -> B:
        """Return the block of one call, as `wrap` requires."""
        return self._block(None, resumes)

    def _block(self, opener: Opener[B] | None, resumes: bool) -> B:
        """Return a new block; with `resumes`, each of its entries continues the last one."""
        raise NotImplementedError
