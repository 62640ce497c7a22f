"""One pass of a loader, which counts the batches that the caller receives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loader import SeededLoader

# What torch's iterator with workers counts: batches that were received, raised ones included.
_RECEIVED = "_rcvd_idx"


class Pass:
    """One pass of a loader, which counts the batches that the caller receives.

    It begins with its first batch: Lightning sets the epoch when it has the iterator already.
    """

    def __init__(self, loader: SeededLoader) -> None:
        self._loader = loader
        # The loader knows the mark: with the pass itself, both would keep the workers alive.
        self.mark: object = object()
        self._batches: Iterator[Any] | None = None
        self._epoch = self._number = 0
        self._lost = 0  # batches that raised since the last one that was handed over

    def __iter__(self) -> Pass:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        loader = self._loader
        if self._batches is None:
            self._batches, self._epoch, self._number = loader.begin(self)
        elif loader.persistent_workers and loader._latest not in (self.mark, None):
            raise RuntimeError(
                "another pass of this loader has begun, and its persistent workers draw for that "
                "one: end a pass before the next, or use another loader"
            )
        before = self._drawn()
        try:
            batch = next(self._batches)
        except StopIteration:
            loader._passes += 1
            raise
        except BaseException as error:
            # If the batch is gone, the pass goes on with the one after it. A timeout or a signal
            # may also come before it.
            now = self._drawn()
            self._lost += isinstance(error, Exception) if now is None else now != before
            raise
        self._number += 1 + self._lost
        self._lost = 0
        loader.count(self, self._epoch, self._number)
        return batch

    def _drawn(self) -> int | None:
        """Return a number that changes when a batch is drawn or received; None if it is unknown."""
        if (order := self._loader.order) is None:
            return None
        received: int | None = getattr(self._batches, _RECEIVED, None)
        return received if self._loader.num_workers else order.yielded
