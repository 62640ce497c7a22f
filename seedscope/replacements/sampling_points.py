"""The points of a sampling grid: which elements each is made of, and with which weights.

See: `compute_coordinates` and its neighbours in aten/src/ATen/native/GridSampler.h of torch, whose
conventions these are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .agreement import accumulation

# The numbers of torch; 0 is linear interpolation, and 1 is padding by the border.
NEAREST, CUBIC = 1, 2
ZEROS, REFLECTION = 0, 2
_A = -0.75  # the parameter of the cubic convolution


class Tap(NamedTuple):
    """One of the elements along an axis that a point is made of.

    Attributes:
        place: the index, a whole number in floating point; outside of the axis it counts as zero.
        weight: the weight.
        slope: the derivative of the weight with respect to the grid's coordinate.
    """

    place: Tensor
    weight: Tensor
    slope: Tensor


class Points(NamedTuple):
    """The points of a grid along one axis of `size` elements, in elements.

    Attributes:
        raw: the coordinates before padding.
        scale: their derivative with respect to the grid's coordinate.
        size: the number of elements.
        padding, is_aligned: as for `grid_sample`.
    """

    raw: Tensor
    scale: float
    size: int
    padding: int
    is_aligned: bool

    def padded(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return where values are after padding, and the derivative with respect to them."""
        slope = torch.ones_like(values)
        if self.padding == ZEROS:
            return values, slope
        if self.padding == REFLECTION:
            values, slope = self._reflected(values)
        # The border itself has no gradient.
        is_inside = (values > 0) & (values < self.size - 1)
        return values.clamp(0, self.size - 1), torch.where(is_inside, slope, 0)

    def _reflected(self, values: Tensor) -> tuple[Tensor, Tensor]:
        low, span = (0.0, self.size - 1.0) if self.is_aligned else (-0.5, float(self.size))
        if span == 0:
            return torch.zeros_like(values), torch.zeros_like(values)
        distance = (values - low).abs()
        rest = distance.fmod(span)
        is_even = (distance / span).floor().remainder(2) == 0
        sign = torch.where(values < low, -1.0, 1.0).to(values.dtype)
        folded = torch.where(is_even, rest + low, span - rest + low)
        return folded, torch.where(is_even, sign, -sign)

    def taps(self, mode: int) -> list[Tap]:
        """Return the taps of each point."""
        if mode == CUBIC:
            return self._cubic()
        at, slope = self.padded(self.raw)
        slope = slope * self.scale
        if mode == NEAREST:
            return [Tap(at.round(), torch.ones_like(at), torch.zeros_like(at))]
        first = at.floor()
        part = at - first
        return [Tap(first, 1 - part, -slope), Tap(first + 1, part, slope)]

    def _cubic(self) -> list[Tap]:
        first = self.raw.floor()
        part = self.raw - first
        weights = _cubic_weights(part)
        return [
            Tap(self.padded(first + step)[0], weight, slope * self.scale)
            for step, (weight, slope) in zip((-1, 0, 1, 2), weights, strict=True)
        ]


def _cubic_weights(part: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the weights of four neighbours, and their derivatives, for a part of a step."""

    def near(x: Tensor) -> tuple[Tensor, Tensor]:
        return ((_A + 2) * x - (_A + 3)) * x * x + 1, (3 * (_A + 2) * x - 2 * (_A + 3)) * x

    def far(x: Tensor) -> tuple[Tensor, Tensor]:
        weight = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
        return weight, (3 * _A * x - 10 * _A) * x + 8 * _A

    (third, d_third), (fourth, d_fourth) = near(1 - part), far(2 - part)
    return [far(part + 1), near(part), (third, -d_third), (fourth, -d_fourth)]


class Corner(NamedTuple):
    """One element that each point is made of: a tap along each axis.

    Attributes:
        taps: the taps.
        is_inside: whether the element exists, of shape [images, points].
        rows: the element's place in all images, of shape [images, points]; any if there is none.
    """

    taps: tuple[Tap, ...]
    is_inside: Tensor
    rows: Tensor

    @property
    def weight(self) -> Tensor:
        return math.prod((tap.weight for tap in self.taps[1:]), start=self.taps[0].weight)

    def slope(self, axis: int) -> Tensor:
        """Return the derivative of the weight with respect to the grid's coordinate of an axis."""
        factors = [tap.slope if i == axis else tap.weight for i, tap in enumerate(self.taps)]
        return math.prod(factors[1:], start=factors[0])


def points_of(inputs: Tensor, grid: Tensor, padding: int, is_aligned: bool) -> list[Points]:
    """Return the points along each axis of the images, of shape [images, points]."""
    coordinates = grid.to(accumulation(inputs.dtype)).flatten(1, -2).unbind(-1)
    found = []
    # The grid has the coordinate of the last axis first.
    for size, at in zip(inputs.shape[2:], reversed(coordinates), strict=True):
        raw = (at + 1) / 2 * (size - 1) if is_aligned else ((at + 1) * size - 1) / 2
        scale = (size - 1) / 2 if is_aligned else size / 2
        found.append(Points(raw, scale, size, padding, is_aligned))
    return found


def corners(taps: Sequence[Sequence[Tap]], sizes: Sequence[int]) -> Iterator[Corner]:
    """Return each combination of taps, one of each axis."""
    for combination in itertools.product(*taps):
        first = combination[0].place
        is_inside = torch.ones_like(first, dtype=torch.bool)
        rows = torch.arange(len(first), device=first.device)[:, None].expand(first.shape)
        for tap, size in zip(combination, sizes, strict=True):
            is_inside = is_inside & (tap.place >= 0) & (tap.place <= size - 1)
            place = tap.place.nan_to_num(0).clamp(0, size - 1).long()
            rows = rows * size + place
        yield Corner(combination, is_inside, rows)
