"""Reflection and replication padding: the gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from .agreement import accumulation, near
from .layout import finished
from .registry import Replacement

# Adds what the margins of one axis have to what they repeat: (inputs, axis, before, after).
Fold = Callable[[Tensor, int, Tensor, Tensor], None]


def _reflect(whole: Tensor, dim: int, before: Tensor, after: Tensor) -> None:
    """Fold the margins back at the first and at the last element, which they do not repeat."""
    low, high, size = before.shape[dim], after.shape[dim], whole.shape[dim]
    if low:
        whole.narrow(dim, 1, low).add_(before.flip(dim))
    if high:
        whole.narrow(dim, size - 1 - high, high).add_(after.flip(dim))


def _replicate(whole: Tensor, dim: int, before: Tensor, after: Tensor) -> None:
    """Add the margins to the first and to the last element, which they repeat."""
    size = whole.shape[dim]
    if before.shape[dim]:
        whole.narrow(dim, 0, 1).add_(before.sum(dim, keepdim=True))
    if after.shape[dim]:
        whole.narrow(dim, size - 1, 1).add_(after.sum(dim, keepdim=True))


def _unpad(fold: Fold, gradient: Tensor, inputs: Tensor, padding: Sequence[int]) -> Tensor:
    """Return the gradient of the inputs in the type in which it is added up.

    Args:
        fold: what becomes of the margins.
        gradient: the gradient of the padded tensor.
        inputs: the tensor that was padded.
        padding: the lengths of the margins, those of the last axis first; below zero they crop.
    """
    total = gradient.to(accumulation(gradient.dtype))
    for axis in range(len(padding) // 2):
        dim = total.dim() - 1 - axis
        low, high = padding[2 * axis : 2 * axis + 2]
        first, last = max(low, 0), total.shape[dim] - max(high, 0)
        # A crop leaves out a part of the inputs, whose gradient is zero.
        start, length = max(-low, 0), last - first
        shape = [*total.shape]
        shape[dim] = inputs.shape[dim]
        whole = total.new_zeros(shape)
        whole.narrow(dim, start, length).copy_(total.narrow(dim, first, length))
        before = total.narrow(dim, 0, first)
        fold(whole, dim, before, total.narrow(dim, last, total.shape[dim] - last))
        total = whole
    return total


def _backward(fold: Fold, gradient: Tensor, inputs: Tensor, padding: Sequence[int]) -> Tensor:
    """Return the gradient of the inputs."""
    return finished(_unpad(fold, gradient, inputs, padding), gradient)


def _agrees(
    fold: Fold,
    result: Tensor,
    native: Tensor,
    gradient: Tensor,
    inputs: Tensor,
    padding: Sequence[int],
) -> bool:
    magnitude = _unpad(fold, gradient.abs(), inputs, padding)
    # An element at a corner gets the margins of all axes; if an axis has one element, both of it.
    margins = [
        max(low, 0) + max(high, 0) for low, high in zip(padding[::2], padding[1::2], strict=True)
    ]
    return near(result, native, magnitude, math.prod(1 + margin for margin in margins))


def _of(name: str, dims: int, fold: Fold) -> Replacement:
    return Replacement(
        f"aten::{name}_pad{dims}d_backward",
        partial(_backward, fold),
        partial(_agrees, fold),
        alert=f"{name}_pad{dims}d_backward",
        outs=("grad_input",),
    )


REPLACEMENTS = tuple(
    _of(name, dims, fold)
    for name, fold in (("reflection", _reflect), ("replication", _replicate))
    for dims in (1, 2, 3)
)
