"""The recomputation of a forward by `torch.utils.checkpoint`, in which a stream replays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..sources.base import Source
from .block import Block
from .isolated import Isolation
from .options import Options
from .position import Position

if TYPE_CHECKING:
    from .stream import Stream


class _Turn(Options):
    """The options of a block that takes the turn, and governs nothing."""

    __slots__ = ()

    def governed(self) -> tuple[Any, ...]:
        return ()


_TURN = _Turn(deterministic=False)


class Recomputation:
    """The context of a recomputation: the stream stands where it stood in the forward.

    A backward may run it again, also in another thread.

    Args:
        stream: the stream.
        states: the stream's states where the forward began; empty if it had not been entered.
        is_inside: whether the forward began inside the stream, and draws from it directly.
    """

    def __init__(self, stream: Stream, states: dict[Source, Any], is_inside: bool) -> None:
        self._stream = stream
        self._states = states
        self._is_inside = is_inside
        self._running: list[tuple[Block, Position]] = []

    def __enter__(self) -> None:
        stream = self._stream
        # A position of its own: what is drawn again does not move the stream.
        replayed = Position(stream.seed, dict(self._states))
        block = stream.block_at(replayed) if self._is_inside else Isolation(_TURN, self)
        # With the turn, since the parts of a backward may run in several threads at once.
        block.__enter__()
        self._running.append((block, stream.position))
        stream.position = replayed

    def __exit__(self, *raised: Any) -> None:
        block, self._stream.position = self._running.pop()
        block.__exit__(*raised)
