"""Resizing, padding and pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from .base import Call, Inputs, Operation, gradient


def resizing() -> list[Operation]:
    modes = [("nearest", 1), ("nearest", 2), ("nearest", 3), ("nearest-exact", 2), ("linear", 1)]
    modes += [("bilinear", 2), ("bicubic", 2), ("trilinear", 3), ("area", 2)]
    found = []
    for mode, dims in modes:
        names = [f"nn.functional.interpolate.{mode}"]
        # The documentation names only these modes.
        says = ("linear", "bilinear", "bicubic", "trilinear")
        names += ["nn.functional.interpolate"] * (mode in says)
        names.append(f"upsample_{mode}{dims}d_backward_out_cuda")
        names += {"bilinear": ["nn.functional.upsample_bilinear"]}.get(mode, [])
        if mode == "nearest":
            names.append("nn.functional.upsample_nearest")
        function = partial(F.interpolate, scale_factor=2, mode=mode)
        make = partial(_image_gradient, function=function, dims=dims)
        found.append(Operation(f"interpolate {mode} {dims}d backward", make, tuple(names)))
    for mode in ("bilinear", "bicubic"):
        function = partial(F.interpolate, scale_factor=0.5, mode=mode, antialias=True)
        entries = (f"upsample_{mode}2d_aa_backward_out_cuda", f"_upsample_{mode}2d_aa")
        make = partial(_image_gradient, function=function, dims=2)
        found.append(Operation(f"interpolate {mode} antialiased backward", make, entries))
    return found


def _image_gradient(t: Inputs, function: Any, dims: int) -> Call:
    return gradient(function, t.image(dims))


def padding() -> list[Operation]:
    found = []
    for dims in (1, 2, 3):
        for mode, module in (("reflect", "Reflection"), ("replicate", "Replication")):
            kernel = f"{module.lower()}_pad{dims}d_backward"
            entries = (
                f"nn.functional.pad.{mode}",
                f"nn.{module}Pad{dims}d",
                f"{kernel}_out_cuda",
                f"{kernel}_cuda",
                *(["nn.functional.pad.replicate_negative"] if mode == "replicate" else []),
            )
            function = partial(F.pad, pad=[2] * 2 * dims, mode=mode)
            make = partial(_image_gradient, function=function, dims=dims)
            found.append(Operation(f"pad {mode} {dims}d backward", make, entries))
    return found


def _unpool(t: Inputs, dims: int) -> Call:
    values, index = getattr(F, f"max_pool{dims}d")(t.image(dims), 2, return_indices=True)
    return partial(getattr(F, f"max_unpool{dims}d"), values, index, 2)


def pooling() -> list[Operation]:
    found = []
    for dims in (1, 2, 3):
        for kind, size in (("avg", 3), ("max", 3), ("adaptive_avg", 5), ("adaptive_max", 5)):
            name = f"{kind}_pool{dims}d"
            module = "nn." + "".join(part.title() for part in kind.split("_")) + f"Pool{dims}d"
            options = {} if kind.startswith("adaptive") else {"stride": 2}
            kernels = [f"{name}_backward_cuda", f"{name}_backward_out_cuda"]
            if name == "max_pool3d":
                kernels = [kernel.replace("3d_", "3d_with_indices_") for kernel in kernels]
            function = partial(getattr(F, name), **options)
            make = partial(_image_gradient, function=_with(function, size), dims=dims)
            entries = (f"nn.functional.{name}", module, *kernels)
            found.append(Operation(f"{name} backward", make, entries))
        if dims > 1:
            name = f"fractional_max_pool{dims}d"
            make = partial(_fractional, name=name, dims=dims)
            kernels = [f"{name}_backward_cuda", f"{name}_backward_out_cuda"]
            entries = (f"nn.functional.{name}", f"nn.FractionalMaxPool{dims}d", *kernels)
            found.append(Operation(f"{name} backward", make, entries))
        entries = (f"nn.MaxUnpool{dims}d", f"max_unpooling{max(dims, 2)}d_forward_out")
        found.append(Operation(f"max_unpool{dims}d", partial(_unpool, dims=dims), entries))
    return found


def _with(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    return lambda x: function(x, size)


def _fractional(t: Inputs, name: str, dims: int) -> Call:
    x = t.image(dims)
    samples = torch.rand(t.batch, x.shape[1], dims, device=t.device)
    function = partial(getattr(F, name), kernel_size=2, output_ratio=[0.7] * dims)
    return gradient(lambda x: function(x, _random_samples=samples), x)
