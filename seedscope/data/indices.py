"""Indices of samples, which carry the epoch and tell repeated draws apart."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sized
from typing import Any, cast

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


class SeededKey(str):
    """A key that is a string, with the attributes of a `SeededIndex`."""

    epoch: int = 0
    repeat: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return marked, (str(self), self.epoch, self.repeat)


class SeededArray(list[Any]):
    """The marked indices of an array or a tensor, and `array` itself, which a dataset gets."""

    array: Any = None


_MARKED = (SeededIndex, SeededKey)


def marked(index: int | str, epoch: int, repeat: int = 0) -> Any:
    """Return an index that carries its epoch and its repeat."""
    # A `__new__` of its own would take twice the time for each index of an epoch.
    made = SeededKey(index) if isinstance(index, str) else SeededIndex(index)
    made.epoch = epoch
    if repeat:
        made.repeat = repeat
    return made


class Marking:
    """Makes the indices of an epoch, in their order, carry the epoch and their repeat."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._drawn: Counter[int | str] = Counter()

    def __call__(self, element: Any) -> Any:
        """Return what a sampler has drawn, with each integer and each string in it marked."""
        if isinstance(element, (np.ndarray, torch.Tensor)):
            return self._mark_array(element)
        if isinstance(element, str):
            return self._mark(element)
        if isinstance(element, (int, np.integer)) and not isinstance(element, bool):
            return self._mark(int(element))
        return _mapped(element, self)

    def _mark_array(self, array: Any) -> Any:
        values = array.tolist()
        is_whole = all(type(value) is int for value in values) if array.ndim == 1 else False
        if array.ndim == 0 and type(values) is int:
            return self._mark(values)
        if not is_whole:
            return array
        made = SeededArray(map(self._mark, values))
        made.array = array
        return made

    def _mark(self, index: int | str) -> Any:
        repeat = self._drawn[index]
        self._drawn[index] += 1
        return marked(index, self._epoch, repeat)


# Keys of datasets like a dict, besides integers and strings.
_VALUES = (bool, float, bytes, type(None))


def _mapped(element: Any, change: Callable[[Any], Any]) -> Any:
    """Return a list, a tuple or a slice with each of its parts changed; another value as it is."""
    if type(element) in (list, tuple):
        return type(element)(map(change, element))
    if isinstance(element, slice):
        return slice(change(element.start), change(element.stop), change(element.step))
    return element


def plain(element: Any) -> Any:
    """Return an index as it was before it was marked."""
    if type(element) is SeededIndex:
        return int(element)
    if type(element) is SeededKey:
        return str(element)
    return element.array if type(element) is SeededArray else _mapped(element, plain)


def epoch_of(element: Any) -> int | None:
    """Return the epoch that an index carries, or None."""
    if type(element) in _MARKED:
        return cast(int, element.epoch)
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
    if type(element) in _MARKED:
        value = plain(element)
        return [value, "repeat", element.repeat] if element.repeat else [value]
    if isinstance(element, slice):
        ends = (element.start, element.stop, element.step)
        return ["slice", *(key for end in ends for key in _keys(end))]
    if isinstance(element, (list, tuple)):
        return ["list", len(element), *(key for item in element for key in _keys(item))]
    if isinstance(element, _VALUES):
        return [type(element).__name__, repr(element)]
    return [element]
