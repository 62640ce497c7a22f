"""Average pooling, adaptive and in windows: the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .agreement import near
from .layout import finished
from .registry import Replacement
from .separable import Axis, most_terms, transpose

_aten = torch.ops.aten


def _adaptive_line(rows: Tensor, outputs: int) -> Tensor:
    found: Tensor = _aten.adaptive_avg_pool2d(rows[:, None, None], [1, outputs])
    return found[:, 0, 0]


def _adaptive_axes(dims: int, gradient: Tensor, inputs: Tensor) -> list[Axis]:
    sizes = zip(inputs.shape[-dims:], gradient.shape[-dims:], strict=True)
    return [Axis(_adaptive_line, a, b) for a, b in sizes]


def _adaptive(dims: int, keeps_format: bool, gradient: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient of the inputs.

    Waits for the device when a size is met for the first time.
    """
    total = transpose(gradient, _adaptive_axes(dims, gradient, inputs))
    return finished(total, gradient, inputs if keeps_format else None)


def _adaptive_agrees(
    dims: int, result: Tensor, native: Tensor, gradient: Tensor, inputs: Tensor
) -> bool:
    axes = _adaptive_axes(dims, gradient, inputs)
    return near(result, native, transpose(gradient.abs(), axes), most_terms(axes, gradient))


def _window_line(
    rows: Tensor,
    outputs: int,
    kernel: int,
    stride: int,
    padding: int,
    is_ceil: bool,
    counts_padding: bool,
    is_sum: bool,
) -> Tensor:
    """Pool lines; as a sum, or divided by the window's length."""
    divisor = 1 if is_sum else None
    found: Tensor = _aten.avg_pool2d(
        rows[:, None], [1, kernel], [1, stride], [0, padding], is_ceil, counts_padding, divisor
    )
    return found[:, 0]


def _window_axes(
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    is_ceil: bool,
    counts_padding: bool,
    divisor: int | None,
) -> list[Axis]:
    windows = zip(_three(kernel), _three(stride or kernel), _three(padding), strict=True)
    common = (is_ceil, counts_padding, divisor is not None)
    sizes = zip(inputs.shape[-3:], gradient.shape[-3:], windows, strict=True)
    return [Axis(_window_line, a, b, (*window, *common)) for a, b, window in sizes]


def _three(values: Sequence[int]) -> list[int]:
    return [*values] * (3 // len(values))


def _windows(gradient: Tensor, inputs: Tensor, *options: Any) -> Tensor:
    """Return the gradient of the inputs of `avg_pool3d`, whose options are `options`.

    Waits for the device when a size is met for the first time.
    """
    total = transpose(gradient, _window_axes(gradient, inputs, *options))
    [*_, divisor] = options
    return finished(total / divisor if divisor else total, gradient)


def _windows_agree(
    result: Tensor, native: Tensor, gradient: Tensor, inputs: Tensor, *options: Any
) -> bool:
    axes = _window_axes(gradient, inputs, *options)
    magnitude = transpose(gradient.abs(), axes)
    [*_, divisor] = options
    magnitude = magnitude / abs(divisor) if divisor else magnitude
    return near(result, native, magnitude, most_terms(axes, gradient))


REPLACEMENTS = (
    Replacement(
        "aten::_adaptive_avg_pool2d_backward",
        partial(_adaptive, 2, True),
        partial(_adaptive_agrees, 2),
        alert="adaptive_avg_pool2d_backward",
    ),
    Replacement(
        "aten::_adaptive_avg_pool3d_backward",
        partial(_adaptive, 3, False),
        partial(_adaptive_agrees, 3),
        alert="adaptive_avg_pool3d_backward",
    ),
    Replacement(
        "aten::avg_pool3d_backward",
        _windows,
        _windows_agree,
        alert="avg_pool3d_backward",
        outs=("grad_input",),
    ),
)
