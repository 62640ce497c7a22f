"""`RandomState`: the present states of the random sources, for checkpoint libraries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .snapshots import (
    capture_all,
    check_format,
    decode_states,
    encode_states,
    restore_all,
    warn_of_missing,
)
from .sources.registry import UNSEEDED, select_sources
from .sources.watch import WATCH
from .support.compiler import opaque


class RandomState:
    """The states of the random sources at the moment of each call, for a checkpoint.

    A checkpoint library saves an object with `state_dict` and `load_state_dict`. A `Snapshot`
    keeps the moment at which it was taken. A `RandomState` has the moment at which the library
    saves, and restores when the library loads. It has random states alone: determinism settings
    stay as the program has set them.

    Args:
        sources: names of the sources to save. All by default.

    Raises:
        TypeError, ValueError: `sources` are not names of registered sources.
    """

    def __init__(self, *, sources: Iterable[str] | None = None) -> None:
        chosen = None if sources is None else tuple(s.name for s in select_sources(sources))
        self._sources: tuple[str, ...] | None = chosen

    def __repr__(self) -> str:
        return f"<RandomState of {', '.join(s.name for s in select_sources(self._sources))}>"

    @opaque
    def state_dict(self) -> dict[str, Any]:
        """Return the present state of each source, ready for `torch.save`.

        A source that cannot be saved (CuPy) or is absent (a GPU that was not initialised) has
        no entry.
        """
        states = WATCH.saving(capture_all)(select_sources(self._sources))
        return {"format": 1, "sources": encode_states(states)}

    @opaque
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the saved state of each source now.

        A source that the state lacks, such as that of a GPU which the other machine did not have,
        goes on from where it is. A `RuntimeWarning` names it. The state of generators that are made
        without a seed has a meaning inside a scope alone.

        Raises:
            ValueError: `state_dict` is damaged, is not a `RandomState`'s, or has a source that is
                not registered here. Nothing was changed.
            RestoreError: a source could not be restored. All others were.
        """
        check_format(state_dict, "RandomState", ("sources",))
        if others := state_dict.keys() - {"format", "sources"}:
            raise ValueError(f"not a RandomState.state_dict(): it has {sorted(map(str, others))}")
        states = decode_states(state_dict["sources"])
        chosen = select_sources(self._sources)
        kept = [source for source in chosen if source is not UNSEEDED]
        warn_of_missing(kept, states, "it goes on from where it is")
        restore = WATCH.restoring(restore_all)
        restore({source: state for source, state in states.items() if source in chosen})
