"""Upsampling: the gradients of `interpolate`.

Not of its nearest modes: torch's own kernels repeat there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .agreement import near
from .layout import finished
from .registry import Replacement
from .separable import Axis, Forward, most_terms, transpose

_aten = torch.ops.aten


def _lines(rows: Tensor, outputs: int, is_aligned: bool, scale: float | None) -> Tensor:
    """Interpolate lines: the forward of one axis of all linear modes."""
    found: Tensor = _aten.upsample_linear1d(rows[:, None], [outputs], is_aligned, scale)
    return found[:, 0]


def _images(name: str) -> Forward:
    """Return a forward of one axis that interpolates images of one row.

    Each becomes two rows, the first of them with a weight of 1: torch copies some images whose
    size stays, whatever the scale, but no axis whose image changes in another one.
    """

    def forward(rows: Tensor, outputs: int, is_aligned: bool, scale: float | None) -> Tensor:
        images = rows[:, None, None]
        found: Tensor = getattr(_aten, name)(images, [2, outputs], is_aligned, 1.0, scale)
        return found[:, 0, 0]

    return forward


class _Mode(NamedTuple):
    """A mode of `interpolate`.

    Attributes:
        forward: the forward of one axis.
        keeps_format: whether the result has the gradient's memory format.
        copies: whether torch's kernel copies the gradient if no size changes, whatever the scale.
            Its forward does not.
    """

    forward: Forward
    keeps_format: bool = False
    copies: bool = False


def _axes(
    mode: _Mode,
    output_size: Sequence[int],
    input_size: Sequence[int],
    is_aligned: bool,
    scales: Sequence[float | None],
) -> list[Axis]:
    scales = [*scales, *[None] * (len(output_size) - len(scales))]  # torch drops those at the end
    if mode.copies and [*output_size] == [*input_size[2:]]:
        scales = [1.0] * len(output_size)
    sizes = zip(input_size[2:], output_size, scales, strict=True)
    return [Axis(mode.forward, a, b, (is_aligned, scale)) for a, b, scale in sizes]


def _backward(
    mode: _Mode,
    gradient: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    is_aligned: bool,
    *scales: float | None,
) -> Tensor:
    """Return the gradient of the input.

    Waits for the device when a size is met for the first time.
    """
    axes = _axes(mode, output_size, input_size, is_aligned, scales)
    return finished(transpose(gradient, axes), gradient, gradient if mode.keeps_format else None)


def _agrees(
    mode: _Mode,
    result: Tensor,
    native: Tensor,
    gradient: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    is_aligned: bool,
    *scales: float | None,
) -> bool:
    axes = _axes(mode, output_size, input_size, is_aligned, scales)
    magnitude = transpose(gradient.abs(), axes, is_absolute=True)
    # Torch rounds the place of each output, and so its weights, by that much of an element.
    longest = max(axis.inputs + axis.outputs for axis in axes) + 8
    shift = 8 * longest * torch.finfo(magnitude.dtype).eps
    terms = most_terms(axes, gradient)
    slack = shift * terms * gradient.abs().max().to(magnitude.dtype)
    return near(result, native, magnitude, terms, slack)


def _of(name: str, mode: _Mode) -> Replacement:
    return Replacement(
        f"aten::{name}_backward",
        partial(_backward, mode),
        partial(_agrees, mode),
        alert=f"{name.removeprefix('_')}_backward",
        outs=("grad_input",),
    )


REPLACEMENTS = tuple(
    _of(*one)
    for one in [
        ("upsample_linear1d", _Mode(_lines)),
        ("upsample_bilinear2d", _Mode(_lines, keeps_format=True)),
        ("upsample_trilinear3d", _Mode(_lines, keeps_format=True)),
        ("upsample_bicubic2d", _Mode(_images("upsample_bicubic2d"), copies=True)),
        ("_upsample_bilinear2d_aa", _Mode(_images("_upsample_bilinear2d_aa"), keeps_format=True)),
        ("_upsample_bicubic2d_aa", _Mode(_images("_upsample_bicubic2d_aa"))),
    ]
)
