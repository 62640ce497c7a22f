"""`Stream`: a scope that resumes where it stopped."""

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
from .open_scopes import open_at
from .opener import Opener
from .options import Options, Threads
from .position import Position
from .recomputation import Recomputation
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
        self.position = Position(self.seed)

    def recompute(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Return the contexts that make `torch.utils.checkpoint` replay the stream.

        Pass the method itself: `checkpoint(f, x, use_reentrant=False,
        context_fn=stream.recompute)`. What `f` draws from the stream, inside of it or around
        it, is then drawn again in the recomputation, which leaves the stream where it was. For
        several streams, combine their contexts with `contextlib.ExitStack`.

        See: https://docs.pytorch.org/docs/stable/checkpoint.html
        """
        is_open = open_at(self.position) is not None
        return nullcontext(), Recomputation(self, dict(self.position.now()), is_open)

    def block_at(self, position: Position) -> Scope:
        """Return a block of the stream that continues from `position`."""
        return Scope(self.seed, self._options, self, position)

    def __repr__(self) -> str:
        return f"<Stream of seed {self.seed}>"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"options": self._options.as_arguments(), "state": self.state_dict()}
        return reduce_publicly(self, Stream, state, {"seed", "_options", "position"})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seed, self._options = state["state"]["seed"], Options(**state["options"])
        self.position = Position(self.seed, decode_states(state["state"]["sources"]))

    @opaque
    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream, ready for `torch.save`.

        Inside the stream's own block this is the present state of the block.
        """
        states = self.position.now()
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
        if open_at(self.position) is not None:
            raise RuntimeError(f"{self!r} is open: load a state before or after the block")
        # In place: a suspended generator of the stream resumes from here, too.
        self.seed = self.position.seed = seed
        self.position.states = states

    def _block(self, opener: Opener[Scope] | None, resumes: bool) -> Scope:
        return Scope(self.seed, self._options, opener, self.position)
