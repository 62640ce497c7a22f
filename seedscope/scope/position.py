"""Where the random numbers of a block that resumes have got to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..sources.base import Source
from ..sources.registry import UNSEEDED
from ..support.torch_internals import current_backward
from . import open_scopes

if TYPE_CHECKING:
    from .block import Block


class Position:
    """Where the random numbers of a block that resumes have got to, for all of its entries.

    The block of a recomputation captures and restores the position as it does a source.

    Attributes:
        states: the states at the last exit; empty before the first entry.
        seed: the seed, which a loaded state may change; None if each scope has its own.
        backward: the backward in which the position was made, or -1.
        course: an object for the present course of the numbers. A recomputation has its own.
    """

    __slots__ = ("backward", "course", "seed", "states")

    name = "position"

    def __init__(
        self,
        seed: int | None = None,
        states: dict[Source, Any] | None = None,
        backward: int | None = None,
    ) -> None:
        self.seed: int | None = seed
        self.states: dict[Source, Any] = states or {}
        self.backward: int = current_backward() if backward is None else backward
        self.course: object = object()

    def now(self, entered: Block | None = None) -> dict[Source, Any]:
        """Return the states from which the next entry, or the one just `entered`, continues."""
        block = open_scopes.open_at(self, besides=entered)
        return self.states if block is None else block.states()

    def keep(self, left: Block) -> None:
        """Let later entries, and one that is still open, continue where `left` stands."""
        states = left.states()
        # With the states of sources that were not registered for this entry.
        self.states = {**self.states, **states}
        if (block := open_scopes.open_at(self, besides=left)) is not None:
            block.move_to(states)

    def direct(self) -> list[str]:
        """Return the names of the sources that draw from this position now."""
        found = []
        block = open_scopes.open_at(self)
        for source in [] if block is None else block.sources():
            governing = (b for b in open_scopes.innermost_first() if b.governs(source))
            if (innermost := next(governing)).position is self and innermost.course is self.course:
                found.append(source.name)
        return found

    def replay(self, seed: int | None, states: dict[Source, Any]) -> None:
        """Begin another course, from `states`."""
        self.restore((seed, dict(states), current_backward(), object()))

    def capture(self) -> tuple[Any, ...]:
        """Return the present course."""
        return self.seed, self.states, self.backward, self.course

    def restore(self, course: tuple[Any, ...]) -> None:
        """Go on with a course that `capture` returned."""
        self.seed, self.states, self.backward, self.course = course


def check_replays(block: Block, backward: int) -> None:
    """Check that `block` draws the same numbers in a recomputation as in the forward.

    Raises:
        RuntimeError: the block would draw on in the backward that runs.
    """
    position = block.position
    began_before = block.backward not in (None, backward)
    if position is not None and (began_before or position.backward != backward):
        remedy = "Use"
    elif block.is_fresh and not _follows(backward):
        remedy = "Give the scope a seed. Or enter the scope inside a Stream, and use"
    else:
        return
    raise RuntimeError(
        f"{block.opener or block!r} cannot be entered during a backward: a recomputation by "
        "torch.utils.checkpoint would draw other numbers than the forward, and the gradients "
        f"would be wrong. {remedy} checkpoint(f, x, use_reentrant=False, "
        "context_fn=stream.recompute): the recomputation then replays the stream."
    )


def _follows(backward: int) -> bool:
    """Return whether fresh seeds follow from a scope that the backward itself has entered."""
    around = (
        block.backward == backward
        for block in open_scopes.innermost_first()
        if block.is_seeded and block.governs(UNSEEDED)
    )
    return next(around, False)
