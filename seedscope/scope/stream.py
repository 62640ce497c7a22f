"""`Stream`: a scope that resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from ..seeds import check_seed, derive_seed
from ..snapshots import check_format, decode_states, encode_states
from ..sources.base import Source
from ..support.compiler import opaque
from ..support.modes import Deterministic
from ..support.pickles import reduce_publicly
from .options import Options, Threads
from .scope import Scope
from .wrapping import wrap

F = TypeVar("F", bound=Callable[..., Any])


class Stream:
    """A seeded scope that can be left and entered again without starting anew.

    The first entry seeds; each later entry continues the same random numbers. A checkpoint can
    keep a stream, also one of `torch.distributed.checkpoint`, Lightning or Accelerate, which
    call `state_dict` and `load_state_dict`.

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
        self._scope = self._begin({})

    @opaque
    def __enter__(self) -> Scope:
        return self._scope.__enter__()

    @opaque
    def __exit__(self, *raised: Any) -> None:
        try:
            self._scope.__exit__(*raised)
        except BaseException:
            self._scope.close(again=True)  # Ctrl-C came before the scope's own exit had begun
            raise

    def __call__(self, function: F) -> F:
        return cast(F, wrap(function, self._continue))

    def __repr__(self) -> str:
        return f"<Stream of seed {self.seed}>"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"options": self._options.as_arguments(), "state": self.state_dict()}
        return reduce_publicly(self, Stream, state, {"seed", "_options", "_scope"})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seed, self._options = state["state"]["seed"], Options(**state["options"])
        self._scope = self._begin(decode_states(state["state"]["sources"]))

    @opaque
    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream, ready for `torch.save`.

        Inside the stream's own block this is the present state of the block.
        """
        return {"format": 1, "seed": self.seed, "sources": encode_states(self._scope.states())}

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
        if self._scope.is_open:
            raise RuntimeError(f"{self!r} is open: load a state before or after the block")
        self.seed = self._scope.seed = seed
        self._scope.resume_from(states)  # in place: a suspended generator resumes from `states` too

    def _begin(self, states: dict[Source, Any]) -> Scope:
        return Scope(self.seed, self._options, opener=self, resumes=True, inner=states)

    def _continue(self, args: Any, kwargs: Any, *, resumes: bool = True) -> Scope:
        return self._scope
