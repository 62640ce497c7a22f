"""Convolutions."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F

from .base import Call, Inputs, Operation, gradient

_CONVOLUTIONS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "conv1d": ("conv1d", 1, 3, {"padding": 1}),
    "conv2d 3x3": ("conv2d", 2, 3, {"padding": 1}),
    "conv2d dilated": ("conv2d", 2, 3, {"padding": 4, "dilation": 4}),
    "conv2d grouped": ("conv2d", 2, 3, {"padding": 1, "groups": 4}),
    "conv2d depthwise": ("conv2d", 2, 3, {"padding": 1, "groups": 32}),
    "conv3d": ("conv3d", 3, 3, {"padding": 1}),
    "conv_transpose1d": ("conv_transpose1d", 1, 3, {"stride": 2}),
    "conv_transpose2d": ("conv_transpose2d", 2, 3, {"stride": 2}),
    "conv_transpose3d": ("conv_transpose3d", 3, 3, {"stride": 2}),
}
_WIDTH = 32


def _convolution(t: Inputs, name: str, dims: int, kernel: int, options: Any, part: str) -> Call:
    x = t.image(dims, _WIDTH)
    groups = options.get("groups", 1)
    weight = t.randn(_WIDTH, _WIDTH // groups, *[kernel] * dims)
    function = partial(getattr(F, name), **options)
    if part == "forward":
        return lambda: function(x, weight)
    return gradient(function, x, weight, of=0 if part == "input gradient" else 1)


def convolutions() -> list[Operation]:
    found = []
    for name, (function, dims, kernel, options) in _CONVOLUTIONS.items():
        module = f"nn.Conv{'Transpose' * ('transpose' in function)}{dims}d"
        lazy = module.replace("nn.", "nn.Lazy")
        entries = (f"nn.functional.{function}", module, lazy)
        for part in ("forward", "input gradient", "weight gradient"):
            make = partial(
                _convolution, name=function, dims=dims, kernel=kernel, options=options, part=part
            )
            found.append(Operation(f"{name}, {part}", make, entries))
    return found
