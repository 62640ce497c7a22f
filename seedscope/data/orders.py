"""Orders that others give: samplers, and lists of indices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import Sampler


class FixedOrder(Sampler[Any]):
    """A sampler of given indices."""

    def __init__(self, indices: Iterable[Any]) -> None:
        self._indices = [*indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._indices)


def is_sampler(source: Any) -> bool:
    """Return whether `source` draws an order, and is no dataset, whose indices are drawn."""
    return isinstance(source, Sampler) or not hasattr(source, "__getitem__")


def chain(sampler: Any) -> Iterator[Any]:
    """Yield a sampler, and those that it draws from, as a batch sampler does."""
    while sampler is not None:
        yield sampler
        sampler = getattr(sampler, "sampler", None)
