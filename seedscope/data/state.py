"""The saved place of a sampler or a loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..support.showing import shown
from .epochs import check_epoch


def check_state(
    state: Any,
    identity: Callable[[int], Mapping[str, Any]],
    place: str,
    end: Callable[[int], int | None],
) -> tuple[int, int]:
    """Return the epoch and the place of a saved state.

    Args:
        state: what was saved.
        identity: what a state of an epoch must have in common with the object that loads it.
        place: the key of the place.
        end: the largest place of an epoch, of which it is None if it is unknown.

    Raises:
        ValueError: the state is damaged, or of another object.
    """
    if not isinstance(state, Mapping) or not {"epoch", place} <= state.keys():
        found = (
            f"keys {shown(sorted(map(str, state)))}" if isinstance(state, Mapping) else shown(state)
        )
        raise ValueError(f"expected a saved place, with an epoch and {place}, got {found}")
    try:
        epoch = check_epoch(state["epoch"])
    except TypeError as error:
        raise ValueError(f"the saved place has no usable epoch: {error}") from None
    expected = identity(epoch)
    others = [
        f"{key} {shown(state[key]) if key in state else 'missing'} instead of {shown(value)}"
        for key, value in expected.items()
        if type(state.get(key)) is not type(value) or state[key] != value
    ]
    if others:
        raise ValueError(
            f"the saved place is of another loader or sampler, with {', '.join(others)}: an epoch "
            "resumes with the same data, seed, order and batches alone"
        )
    found, last = state[place], end(epoch)
    if type(found) is not int or found < 0 or (last is not None and found > last):
        limit = "" if last is None else f" up to {last}"
        raise ValueError(f"{place} must be an integer from 0{limit}, got {shown(found)}")
    return epoch, found
