"""Who asks for an index or a sample, found among the callers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def fetcher() -> Any:
    """Return the object that draws the batches of one pass of a loader; None by hand."""
    return next(_callers("torch.utils.data._utils.fetch", "_MapDatasetFetcher"), None)


def is_prefetched() -> bool:
    """Return whether a plain loader asks for indices that its workers will draw later.

    torchdata's StatefulDataLoader, which has a class of its own, does not count.
    """
    callers = _callers("torch.utils.data.dataloader", "_MultiProcessingDataLoaderIter")
    return next(callers, None) is not None


def is_shared_out() -> bool:
    """Return whether Accelerate gives each process its share of the batches or samples."""
    kinds = ("BatchSamplerShard", "DataLoaderDispatcher", "IterableDatasetShard")
    return next(_callers("accelerate.data_loader", *kinds), None) is not None


def _callers(module: str, *kinds: str) -> Iterator[Any]:
    """Yield the objects of classes, told by their names, whose methods are being called."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        # In the module alone: to ask any other frame for its variables makes a copy of them.
        if frame.f_globals.get("__name__") == module:
            caller = frame.f_locals.get("self")
            if type(caller).__name__ in kinds:
                yield caller
        frame = frame.f_back
