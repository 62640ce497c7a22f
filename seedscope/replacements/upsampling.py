"""Upsampling: the gradients of `interpolate`.

Not of its nearest modes: torch's own kernels repeat there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

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
    """Return a forward of one axis that interpolates images of one row."""

    def forward(rows: Tensor, outputs: int, is_aligned: bool, scale: float | None) -> Tensor:
        images = rows[:, None, None]
        found: Tensor = getattr(_aten, name)(images, [1, outputs], is_aligned, None, scale)
        return found[:, 0, 0]

    return forward


def _axes(
    forward: Forward,
    output_size: Sequence[int],
    input_size: Sequence[int],
    is_aligned: bool,
    scales: Sequence[float | None],
) -> list[Axis]:
    scales = [*scales, *[None] * (len(output_size) - len(scales))]  # torch drops those at the end
    sizes = zip(input_size[2:], output_size, scales, strict=True)
    return [Axis(forward, a, b, (is_aligned, scale)) for a, b, scale in sizes]


def _backward(
    forward: Forward,
    keeps_format: bool,
    gradient: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    is_aligned: bool,
    *scales: float | None,
) -> Tensor:
    """Return the gradient of the input.

    Waits for the device when a size is met for the first time.
    """
    axes = _axes(forward, output_size, input_size, is_aligned, scales)
    return finished(transpose(gradient, axes), gradient, gradient if keeps_format else None)


def _agrees(
    forward: Forward,
    result: Tensor,
    native: Tensor,
    gradient: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    is_aligned: bool,
    *scales: float | None,
) -> bool:
    axes = _axes(forward, output_size, input_size, is_aligned, scales)
    magnitude = transpose(gradient.abs(), axes, is_absolute=True)
    # Torch rounds the place of each output, and so its weights, by that much of an element.
    longest = max(axis.inputs + axis.outputs for axis in axes) + 8
    shift = 8 * longest * torch.finfo(magnitude.dtype).eps
    terms = most_terms(axes, gradient)
    slack = shift * terms * gradient.abs().max().to(magnitude.dtype)
    return near(result, native, magnitude, terms, slack)


def _of(name: str, forward: Forward, keeps_format: bool) -> Replacement:
    return Replacement(
        f"aten::{name}_backward",
        partial(_backward, forward, keeps_format),
        partial(_agrees, forward),
        alert=f"{name.removeprefix('_')}_backward",
        outs=("grad_input",),
    )


# The operation, its forward along one axis, and whether its result has the gradient's format.
REPLACEMENTS = tuple(
    _of(*one)
    for one in [
        ("upsample_linear1d", _lines, False),
        ("upsample_bilinear2d", _lines, True),
        ("upsample_trilinear3d", _lines, True),
        ("upsample_bicubic2d", _images("upsample_bicubic2d"), False),
        ("_upsample_bilinear2d_aa", _images("_upsample_bilinear2d_aa"), True),
        ("_upsample_bicubic2d_aa", _images("_upsample_bicubic2d_aa"), False),
    ]
)
