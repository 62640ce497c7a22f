"""`Stream`: a scope that resumes where it stopped, and replays in a recomputation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..seeds import check_seed, derive_seed
from ..snapshots import (
    check_format,
    decode_states,
    encode_states,
    seeded_states,
    warn_of_missing,
)
from ..sources.base import Source
from ..sources.registry import select_sources
from ..support.compiler import opaque
from ..support.modes import Deterministic
from ..support.pickles import reduce_publicly
from ..support.showing import shown
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
        try:
            options, backward = Options(**state["options"]), state.get("backward", -1)
            if type(backward) is not int:
                raise TypeError(f"the backward is {shown(backward)}")
            seed, states = _read(state["state"])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"the pickled Stream is damaged: {error!r:.500}") from error
        self.seed, self._options = seed, options
        self._position = Position(seed, states, backward)

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

        A source that the state lacks, such as that of a GPU which the other machine did not have,
        begins at the seed. A `RuntimeWarning` names it.

        Raises:
            ValueError: `state_dict` is damaged, or not of a stream. Nothing was changed.
            RuntimeError: the stream is open.
        """
        seed, states = _read(state_dict)
        if open_at(self._position) is not None:
            raise RuntimeError(f"{self!r} is open: load a state before or after the block")
        sources = select_sources(self._options.sources)
        warn_of_missing(sources, states, f"at the next entry it begins at seed {seed}")
        # In place: a suspended generator of the stream resumes from here, too.
        self.seed = self._position.seed = seed
        self._position.states, self._position.backward = states, -1

    def _block(self, opener: Opener[Scope] | None, resumes: bool) -> Scope:
        return Scope(self.seed, self._options, opener, self._position)


def _read(state_dict: Any) -> tuple[int, dict[Any, Any]]:
    """Return the seed and the states of a Stream's `state_dict`, checked in full."""
    check_format(state_dict, "Stream", ("sources",))
    try:
        seed = check_seed(state_dict["seed"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the Stream state has no usable seed: {error}") from error
    return seed, decode_states(state_dict["sources"])


class _Replay(Isolation):
    """The block of one recomputation: the stream stands where it stood in the forward.

    Args:
        recomputation: what has opened the block.
        options: those of the block, which governs no source.
        position: that of the stream.
        then: the seed and the states at which the stream stood.
        direct: the scope of the sources that the forward draws from the stream without entering
            it; None if there are none.
    """

    __slots__ = ("_direct", "_now", "_then")

    def __init__(
        self,
        recomputation: _Recomputation,
        options: Options,
        position: Position,
        then: tuple[int | None, dict[Source, Any]],
        direct: Scope | None,
    ) -> None:
        super().__init__(options, recomputation)
        self._now, self._then, self._direct = position, then, direct

    def _governed(self) -> tuple[Any, ...]:
        return (*super()._governed(), self._now)

    def _start(self, sources: list[Source], states: dict[Source, Any]) -> None:
        self._now.replay(*self._then)
        if self._direct is not None:
            self._direct.__enter__()

    def leave(self, error: BaseException | None) -> None:
        if self._direct is not None and self._direct.is_open:
            self._direct.__exit__(None, error, None)
        super().leave(error)

    def close(self, settings: list[Any] | None = None) -> None:
        try:
            if self._direct is not None and self._direct.is_open:
                self._direct.close()
        finally:
            super().close(settings)

    def __repr__(self) -> str:
        return f"<recomputation with {self.opener!r}>"


class _Recomputation(Opener[_Replay]):
    """The context of a recomputation. A backward may run it again, also in another thread.

    Args:
        position: that of the stream.
        options: those of the stream.
        stream: the stream itself.
    """

    def __init__(self, position: Position, options: Options, stream: Stream) -> None:
        self._position, self._stream = position, stream
        self._then = position.seed, dict(position.now())
        self._direct = options.narrowed(position.direct())
        # The parts of a backward may run in several threads at once, and take turns.
        self._options = Options(False, threads="wait" if options.waits else "raise", sources=[])

    def _block(self, opener: Opener[_Replay] | None, resumes: bool) -> _Replay:
        direct = None
        if self._direct.sources:
            direct = Scope(self._then[0], self._direct, self._stream, self._position)
        return _Replay(self, self._options, self._position, self._then, direct)

    def __repr__(self) -> str:
        return repr(self._stream)
