"""A `collate_fn` whose draws follow from the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

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
        # It may be a method of the dataset, which leaves some generators alone.
        self._held = Held(collate_fn, "collate_fn", exclude, around=(drawing.held,))
        self._held.warn()
        self._begun: Any = None
        self._is_settled = False  # whether a batch of the epoch was made and looked at
        self._options = SourcesAlone()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_begun": None, "_options": SourcesAlone()}

    def __call__(self, samples: Any) -> Any:
        if self._begun is not self._drawing.begun:
            self._held.look()
            self._options = SourcesAlone(self._held.sources)
            self._begun, self._is_settled = self._drawing.begun, False
        make = partial(self._collate_fn, samples)
        if self._is_settled:
            return self._drawing.batch(make, self._options)
        again = partial(self._collate_fn, _copied(samples))  # the first call may change them
        batch = self._drawing.batch(make, self._options)
        if self._held.has_others(self._options.held):
            # It has made a generator that it keeps, which the first batch elsewhere finds.
            self._options = SourcesAlone(self._held.sources)
            batch = self._drawing.batch(again, self._options, again=True)
        self._is_settled = True
        return batch


def _copied(samples: Any) -> Any:
    """Return samples with a copy of each tensor, array, list, tuple and dict; other parts stay."""
    if isinstance(samples, torch.Tensor):
        return samples.clone()
    if isinstance(samples, np.ndarray):
        return samples.copy()
    if type(samples) in (list, tuple):
        return type(samples)(map(_copied, samples))
    if isinstance(samples, tuple) and hasattr(samples, "_make"):
        return samples._make(map(_copied, samples))
    if type(samples) is dict:
        return {key: _copied(value) for key, value in samples.items()}
    return samples
