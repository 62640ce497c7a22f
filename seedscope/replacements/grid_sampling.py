"""Sampling of images at the points of a grid: the gradients of the images and of the grid."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .agreement import accumulation, equal, near
from .registry import Replacement
from .sampling_points import CUBIC, NEAREST, REFLECTION, Corner, Points, Tap, corners, points_of


def _rows(images: Tensor) -> Tensor:
    """Return the elements of images as rows of their channels, in the type of the sums."""
    return images.to(accumulation(images.dtype)).movedim(1, -1).flatten(0, -2)


def _add_rows(total: Tensor, corner: Corner, weight: Tensor, rows: Tensor) -> None:
    """Add to each element the rows of the points that have it as this corner.

    Points without the element add zero, each to another one: long runs of one index are slow.
    """
    spread = torch.arange(corner.rows.numel(), device=total.device) % max(len(total), 1)
    places = torch.where(corner.is_inside.flatten(), corner.rows.flatten(), spread)
    values = torch.where(corner.is_inside.flatten()[:, None], weight.flatten()[:, None] * rows, 0)
    total.index_put_((places,), values, accumulate=True)


def _of_images(taps: list[list[Tap]], gradient: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient of the images in the type in which it is added up."""
    rows = _rows(gradient)
    count = len(inputs) * math.prod(inputs.shape[2:])
    total = rows.new_zeros(count, inputs.shape[1])
    for corner in corners(taps, inputs.shape[2:]):
        _add_rows(total, corner, corner.weight, rows)
    return total.view(len(inputs), *inputs.shape[2:], inputs.shape[1]).movedim(-1, 1)


def _of_grid(taps: list[list[Tap]], gradient: Tensor, inputs: Tensor, grid: Tensor) -> Tensor:
    """Return the gradient of the grid in the type in which it is added up."""
    rows, elements = _rows(gradient), _rows(inputs)
    slopes = [torch.zeros_like(axis[0].place) for axis in taps]
    for corner in corners(taps, inputs.shape[2:]):
        effect = (elements[corner.rows.flatten()] * rows).sum(1).view(corner.rows.shape)
        for axis, slope in enumerate(slopes):
            slope += torch.where(corner.is_inside, effect * corner.slope(axis), 0)
    return torch.stack(slopes[::-1], -1).view(grid.shape)


def _backward(
    gradient: Tensor,
    inputs: Tensor,
    grid: Tensor,
    mode: int,
    padding: int,
    is_aligned: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the images and of the grid, those that are wanted."""
    taps = [points.taps(mode) for points in points_of(inputs, grid, padding, is_aligned)]
    of_images = of_grid = None
    if wanted[0]:
        of_images = _of_images(taps, gradient, inputs).to(inputs.dtype).contiguous()
    if wanted[1] and mode != NEAREST:
        of_grid = _of_grid(taps, gradient, inputs, grid).to(grid.dtype)
    elif wanted[1]:
        of_grid = torch.zeros_like(grid, memory_format=torch.contiguous_format)
    return of_images, of_grid


# The points themselves are rounded before the sums, by `_shift` of an element. So a point near a
# whole number may have one more tap, and one near the middle another nearest element.


def _shift(points: Points) -> Tensor:
    return 8 * torch.finfo(points.raw.dtype).eps * (points.raw.abs() + points.size)


def _reach(points: Points, mode: int) -> list[Tap]:
    """Return all taps that the rounding of the points may choose, with their largest weights."""
    shift = _shift(points)
    if mode == CUBIC:
        taps = points.taps(mode)
        low, high = (points.raw.floor() + step for step in (-2, 3))
        outer = [
            Tap(points.padded(place)[0], torch.zeros_like(place), place) for place in (low, high)
        ]
        return [Tap(tap.place, tap.weight.abs() + 8 * shift, tap.slope) for tap in taps + outer]
    at, _ = points.padded(points.raw)
    first = at.floor()
    part = at - first
    if mode == NEAREST:
        return [
            Tap(first, (part < 0.5 + shift).to(at.dtype), at),
            Tap(first + 1, (part > 0.5 - shift).to(at.dtype), at),
        ]
    inner = [Tap(first, 1 - part + 2 * shift, at), Tap(first + 1, part + 2 * shift, at)]
    return [*inner, *(Tap(first + step, 2 * shift, at) for step in (-1, 2))]


def _jumps(points: Points) -> Tensor:
    """Return whether the gradient of the grid may jump within the rounding of a point."""
    distance = (points.raw - points.raw.round()).abs()
    is_near = distance <= _shift(points)
    return is_near | (distance >= 0.5 - _shift(points)) if points.padding == REFLECTION else is_near


def _agrees(
    result: tuple[Tensor | None, Tensor | None],
    native: tuple[Tensor | None, Tensor | None],
    gradient: Tensor,
    inputs: Tensor,
    grid: Tensor,
    mode: int,
    padding: int,
    is_aligned: bool,
    wanted: Sequence[bool],
) -> bool:
    points = points_of(inputs, grid, padding, is_aligned)
    reach = [_reach(one, mode) for one in points]
    sizes = gradient.abs(), inputs.abs()
    if result[0] is not None and native[0] is not None:
        bound = _of_images(reach, sizes[0], inputs)
        plain = [[Tap(t.place, t.weight.abs(), t.slope) for t in one.taps(mode)] for one in points]
        ones = [[Tap(t.place, torch.ones_like(t.weight), t.slope) for t in axis] for axis in plain]
        terms = int(_of_images(ones, torch.ones_like(gradient), inputs).max())
        slack = bound - _of_images(plain, sizes[0], inputs)
        if not near(result[0], native[0], bound, terms, slack.clamp(min=0)):
            return False
    if result[1] is None or native[1] is None:
        return True
    if mode == NEAREST:
        return equal(result[1], native[1])
    is_known = torch.isfinite(grid).all(
        -1, keepdim=True
    )  # elsewhere torch's kernels differ by device
    effects = _effects(reach, *sizes, inputs)
    shift = functools.reduce(torch.maximum, map(_shift, points))
    # A jump along one axis leaves the weights along the others, and so their gradients.
    slacks = [torch.where(_jumps(one), 4, 8 * shift) for one in reversed(points)]
    scales = torch.tensor([one.scale for one in reversed(points)], device=grid.device)
    magnitude = effects[..., None] * scales
    slack = (magnitude * torch.stack(slacks, -1)).nan_to_num(nan=0)  # no element in reach
    magnitude, slack = magnitude.view(grid.shape), slack.view(grid.shape)
    ours, theirs = (torch.where(is_known, one, 0) for one in (result[1], native[1]))
    return near(ours, theirs, magnitude, inputs.shape[1] * 4 ** len(points), slack)


def _effects(taps: list[list[Tap]], gradient: Tensor, elements: Tensor, inputs: Tensor) -> Tensor:
    """Return for each point the sum of the products with all elements that it may be made of."""
    rows, elements = _rows(gradient), _rows(elements)
    total = torch.zeros_like(taps[0][0].place)
    for corner in corners(taps, inputs.shape[2:]):
        effect = (elements[corner.rows.flatten()] * rows).sum(1).view(corner.rows.shape)
        total += torch.where(corner.is_inside, effect, 0)
    return total


REPLACEMENTS = tuple(
    Replacement(
        f"aten::grid_sampler_{dims}d_backward",
        _backward,
        _agrees,
        alert=f"grid_sampler_{dims}d_backward",
        carriers=(0, 1),
    )
    for dims in (2, 3)
)
