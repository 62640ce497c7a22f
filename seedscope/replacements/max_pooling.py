"""Max pooling with indices, in windows, adaptive and fractional: the gradients."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from .agreement import near
from .layout import finished
from .registry import Replacement
from .scattering import add_at, planes

# On an H200 torch's kernel did not raise, and gave 30 results in 30 runs (torch 2.11,
# `python -m benchmarks gpu`).
_SILENT = ("adaptive_max_pool3d",)


def _collect(dims: int, gradient: Tensor, inputs: Tensor, indices: Tensor) -> Tensor:
    """Return the gradient of the inputs in the type in which it is added up."""
    size = math.prod(inputs.shape[-dims:])
    total = add_at(planes(indices, dims, size), gradient, inputs.numel())
    return total.view(inputs.shape)


def _backward(
    dims: int, keeps_format: bool, gradient: Tensor, inputs: Tensor, *options: object
) -> Tensor:
    """Return the gradient of the inputs; the last of `options` are the indices of the maxima."""
    [*_, indices] = options
    assert isinstance(indices, Tensor)
    total = _collect(dims, gradient, inputs, indices)
    return finished(total, gradient, inputs if keeps_format else None)


def _agrees(
    dims: int, result: Tensor, native: Tensor, gradient: Tensor, inputs: Tensor, *options: object
) -> bool:
    [*_, indices] = options
    assert isinstance(indices, Tensor)
    magnitude = _collect(dims, gradient.abs(), inputs, indices)
    most = _collect(dims, torch.ones_like(gradient, dtype=torch.float32), inputs, indices).max()
    return near(result, native, magnitude, int(most))


def _of(name: str, dims: int, keeps_format: bool) -> Replacement:
    return Replacement(
        f"aten::{name}_backward",
        partial(_backward, dims, keeps_format),
        partial(_agrees, dims),
        alert=f"{name}_backward",
        outs=("grad_input",),
        is_silent=name in _SILENT,
    )


# The operation, the dimensions of its windows, and whether its result has the inputs' memory
# format.
REPLACEMENTS = tuple(
    _of(*one)
    for one in [
        ("max_pool3d_with_indices", 3, True),
        ("adaptive_max_pool2d", 2, True),
        ("adaptive_max_pool3d", 3, False),
        ("fractional_max_pool2d", 2, False),
        ("fractional_max_pool3d", 3, False),
    ]
)
