"""`Stream`: a scope that resumes where it stopped, and replays in a recomputation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..seeds import check_seed, derive_seed
from ..snapshots import check_format, decode_states, encode_states, seeded_states
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
        several streams, enter the second context of each, in any order.

        See: https://docs.pytorch.org/docs/stable/checkpoint.html
        """
        return nullcontext(), _Recomputation(self._position, self._options, self)

    def __repr__(self) -> str:
        return f"<Stream of seed {self.seed}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy that is made in a recomputation replays if the stream does.
        state = {
            "options": self._options.as_arguments(),
            "state": self.state_dict(),
            "backward": self._position.backward,
        }
        return reduce_publicly(self, Stream, state, {"seed", "_options", "_position"})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seed, self._options = state["state"]["seed"], Options(**state["options"])
        states = decode_states(state["state"]["sources"])
        self._position = Position(self.seed, states, state.get("backward", -1))

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
        self._position.states, self._position.backward = states, -1

    def _block(self, opener: Opener[Scope] | None, resumes: bool) -> Scope:
        return Scope(self.seed, self._options, opener, self._position)


class _Turn(Isolation):
    """A block that holds the turn for a recomputation. Of the sources it governs none."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<recomputation with {self.opener!r}>"


class _Recomputation:
    """The context of a recomputation: the stream stands where it stood in the forward.

    A backward may run it again, also in another thread.

    Args:
        position: that of the stream.
        options: those of the stream.
        stream: the stream itself.
    """

    def __init__(self, position: Position, options: Options, stream: Stream) -> None:
        self._position, self._stream = position, stream
        self._seed, self._states = position.seed, dict(position.now())
        # The sources that the forward draws from the stream without entering it.
        self._direct = options.narrowed(position.direct())
        # The parts of a backward may run in several threads at once, and take turns.
        self._turn = Options(False, threads="wait" if options.waits else "raise", sources=[])
        self._running: list[tuple[Block, Scope, tuple[Any, ...]]] = []

    def __enter__(self) -> None:
        turn = _Turn(self._turn, self._stream)
        scope = Scope(self._seed, self._direct, self._stream, self._position)
        course = None  # until the turn is taken: it is another recomputation's that runs
        try:
            turn.__enter__()
            course = self._position.course_now()
            self._position.replay(self._seed, self._states)
            if self._direct.sources:
                scope.__enter__()
            self._running.append((turn, scope, course))
        except BaseException:
            self._close(turn, scope, course)
            raise

    def __exit__(self, *raised: Any) -> None:
        turn, scope, course = self._running[-1]
        try:
            if scope.is_open:
                scope.__exit__(*raised)
            self._position.go_on(course)
            turn.__exit__(*raised)
        except BaseException:
            self._close(turn, scope, course)  # Ctrl-C came between
            raise
        finally:
            self._running.pop()

    def _close(self, turn: Block, scope: Block, course: tuple[Any, ...] | None) -> None:
        """Leave what is open of a recomputation, even if Ctrl-C has come."""
        if scope.is_open:
            scope.close(again=True)
        if course is not None:
            self._position.go_on(course)
        if turn.is_open:
            turn.close(again=True)
