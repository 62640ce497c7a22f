"""A `collate_fn` whose draws follow from the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from .drawing import Drawing
from .held import Held
from .options import SourcesAlone


class SeededCollate:
    """A `collate_fn` that draws numbers as a function of (seed, epoch, batch).

    The batch is known by its last sample, which the same process has just drawn.

    Args:
        collate_fn: the function that makes a batch of samples.
        drawing: how the dataset draws the samples.
        exclude: paths of generators to leave alone.
    """

    def __init__(
        self, collate_fn: Callable[[Any], Any], drawing: Drawing, exclude: Iterable[str] = ()
    ) -> None:
        self._collate_fn, self._drawing = collate_fn, drawing
        self._held = Held(collate_fn, "collate_fn", exclude)
        self._held.warn()
        self._begun: Any = None
        self._options = SourcesAlone()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_begun": None, "_options": SourcesAlone()}

    def __call__(self, samples: Any) -> Any:
        is_new = self._begun != self._drawing.begun
        if is_new:
            self._held.look()
            self._options = SourcesAlone(self._held.sources)
            self._begun = self._drawing.begun
        make = partial(self._collate_fn, samples)
        batch = self._drawing.batch(make, self._options)
        if is_new and self._held.has_more():
            # It has made a generator that it keeps, which the first batch elsewhere finds.
            self._options = SourcesAlone(self._held.sources)
            batch = self._drawing.batch(make, self._options, again=True)
        return batch
