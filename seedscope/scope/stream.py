"""`Stream`: a scope that resumes where it stopped, and replays in a recomputation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..seeds import check_seed, derive_seed
from ..snapshots import check_format, decode_states, encode_states, seeded_states
from ..sources.base import Source
from ..sources.registry import select_sources
from ..support.compiler import opaque
from ..support.modes import Deterministic
from ..support.pickles import reduce_publicly
from .block import Block
from .isolated import Isolation
from .open_scopes import open_at
from .opener import Opener
from .options import Options, Threads
from .position import Position
from .scope import Scope


class Stream(Opener[Scope]):
    """A seeded scope that can be left and entered again without starting anew.

    The first entry seeds; each later entry continues the same random numbers, also an entry
    inside another one. Settings do not continue: each entry applies those of the options. A
    checkpoint can keep a stream, also one of `torch.distributed.checkpoint`, Lightning or
    Accelerate, which call `state_dict` and `load_state_dict`.

    Args:
        seed: an integer in [0, 2**64).
        keys: integers or strings that name the purpose of the stream. Streams with the same
            seed and different keys are independent.
        deterministic, fill_uninitialized_memory, threads, sources: as for `seeded`.

    Attributes:
        seed: `seed` itself without keys, else `derive_seed(seed, *keys)`.
    """

    @opaque
    def __init__(
        self,
        seed: int,
        *keys: int | str,
        deterministic: Deterministic = True,
        fill_uninitialized_memory: bool | None = None,
        threads: Threads = "raise",
        sources: Iterable[str] | None = None,
    ) -> None:
        self.seed: int = derive_seed(seed, *keys) if keys else check_seed(seed)
        self._options = Options(deterministic, fill_uninitialized_memory, threads, sources)
        self._position = Position(self.seed)

    def recompute(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Return the contexts that make `torch.utils.checkpoint` replay the stream.

        Pass the method itself: `checkpoint(f, x, use_reentrant=False,
        context_fn=stream.recompute)`. What `f` draws from the stream, inside of it or around
        it, is then drawn again in the recomputation, which leaves the stream where it was. For
        several streams, combine their contexts with `contextlib.ExitStack`.

        See: https://docs.pytorch.org/docs/stable/checkpoint.html
        """
        is_open = open_at(self._position) is not None
        return nullcontext(), _Recomputation(self, dict(self._position.now()), is_open)

    def __repr__(self) -> str:
        return f"<Stream of seed {self.seed}>"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"options": self._options.as_arguments(), "state": self.state_dict()}
        return reduce_publicly(self, Stream, state, {"seed", "_options", "_position"})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seed, self._options = state["state"]["seed"], Options(**state["options"])
        self._position = Position(self.seed, decode_states(state["state"]["sources"]))

    @opaque
    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream, ready for `torch.save`.

        Inside the stream's own block this is the present state of the block.
        """
        states = self._position.now()
        if not states:  # before the first entry
            states = seeded_states(select_sources(self._options.sources), self.seed)
        return {"format": 1, "seed": self.seed, "sources": encode_states(states)}

    @opaque
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume, at the next entry, from the state that `state_dict` returned.

        Raises:
            ValueError: `state_dict` is damaged, or not of a stream. Nothing was changed.
            RuntimeError: the stream is open.
        """
        check_format(state_dict, "Stream", ("sources",))
        try:
            seed = check_seed(state_dict["seed"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"the Stream state has no usable seed: {error}") from error
        states = decode_states(state_dict["sources"])
        if open_at(self._position) is not None:
            raise RuntimeError(f"{self!r} is open: load a state before or after the block")
        # In place: a suspended generator of the stream resumes from here, too.
        self.seed = self._position.seed = seed
        self._position.states = states

    def _block(self, opener: Opener[Scope] | None, resumes: bool) -> Scope:
        return Scope(self.seed, self._options, opener, self._position)

    def _block_at(self, position: Position) -> Scope:
        return Scope(self.seed, self._options, self, position)


class _Turn(Options):
    """The options of a block that takes the turn, and governs nothing."""

    __slots__ = ()

    def governed(self) -> tuple[Any, ...]:
        return ()


_TURN = _Turn(deterministic=False)


class _Recomputation:
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
        block = stream._block_at(replayed) if self._is_inside else Isolation(_TURN, self)
        # With the turn, since the parts of a backward may run in several threads at once.
        block.__enter__()
        self._running.append((block, stream._position))
        stream._position = replayed

    def __exit__(self, *raised: Any) -> None:
        block, position = self._running.pop()
        try:
            block.__exit__(*raised)
        finally:
            self._stream._position = position
