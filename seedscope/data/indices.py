"""Indices of samples, which carry the epoch and tell repeated draws apart."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sized
from typing import Any

import numpy as np
import torch


class SeededIndex(int):
    """An index that a `SeededSampler` has drawn. To a dataset it is an integer.

    Attributes:
        epoch: the epoch in which it was drawn.
        repeat: how often the epoch has drawn the same index before.
    """

    epoch: int = 0
    repeat: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return marked, (int(self), self.epoch, self.repeat)


def marked(index: int, epoch: int, repeat: int = 0) -> SeededIndex:
    """Return an index that carries its epoch and its repeat."""
    # A `__new__` of its own would take twice the time for each index of an epoch.
    made = SeededIndex(index)
    made.epoch = epoch
    if repeat:
        made.repeat = repeat
    return made


class Marking:
    """Makes the indices of an epoch, in their order, carry the epoch and their repeat."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._drawn: Counter[int] = Counter()

    def __call__(self, element: Any) -> Any:
        """Return what a sampler has drawn, with each integer in it marked."""
        return mapped(element, self._mark)

    def _mark(self, index: int) -> SeededIndex:
        repeat = self._drawn[index]
        self._drawn[index] += 1
        return marked(index, self._epoch, repeat)


# Keys of datasets like a dict, besides integers and strings.
_VALUES = (bool, float, bytes, type(None))


def mapped(element: Any, change: Callable[[Any], Any]) -> Any:
    """Return an index, or a container or a slice of indices, with each integer changed."""
    if isinstance(element, (int, np.integer)) and not isinstance(element, bool):
        return change(element)
    if isinstance(element, torch.Tensor) and element.ndim == 0 and not element.is_floating_point():
        return change(element.item())
    if type(element) in (list, tuple):
        return type(element)(mapped(item, change) for item in element)
    if isinstance(element, slice):
        ends = (mapped(end, change) for end in (element.start, element.stop, element.step))
        return slice(*ends)
    return element


def plain(element: Any) -> Any:
    """Return an index as it was before it was marked."""
    if type(element) is SeededIndex:
        return int(element)
    return mapped(element, _plain) if isinstance(element, (list, tuple, slice)) else element


def _plain(index: Any) -> Any:
    return int(index) if type(index) is SeededIndex else index


def epoch_of(element: Any) -> int | None:
    """Return the epoch that an index carries, or None."""
    if type(element) is SeededIndex:
        return element.epoch
    if isinstance(element, slice):
        element = (element.start, element.stop, element.step)
    if isinstance(element, (list, tuple)):
        return next((epoch for item in element if (epoch := epoch_of(item)) is not None), None)
    return None


def keys_of(element: Any, dataset: Sized) -> tuple[int | str, ...]:
    """Return the keys of an index, from which the seed of the sample is derived.

    An index from the end counts as the one from the beginning.
    """
    if type(element) is int and element >= 0:
        return (element,)
    first, *more = _keys(element)
    if not isinstance(first, str) and hasattr(first, "__index__") and operator.index(first) < 0:
        first = operator.index(first) + len(dataset)
    return (first, *more)


def count_of(element: Any) -> int:
    """Return the number of samples that an index stands for, if it is one or a list."""
    return len(element) if isinstance(element, list) else 1


def _keys(element: Any) -> list[Any]:
    """Return the keys of an index; a container has a mark, which tells one list from two."""
    if isinstance(element, (np.ndarray, torch.Tensor)):
        element = element.tolist()
    if type(element) is SeededIndex:
        return [int(element), "repeat", element.repeat] if element.repeat else [int(element)]
    if isinstance(element, slice):
        ends = (element.start, element.stop, element.step)
        return ["slice", *(key for end in ends for key in _keys(end))]
    if isinstance(element, (list, tuple)):
        return ["list", len(element), *(key for item in element for key in _keys(item))]
    if isinstance(element, _VALUES):
        return [type(element).__name__, repr(element)]
    return [element]
