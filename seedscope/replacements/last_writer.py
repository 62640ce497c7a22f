"""Operations that write to places that may repeat: `put_` and max unpooling.

Where several values go to one place, torch leaves open which one stays. Here the last one stays,
as with one thread of a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from .agreement import near, similar
from .layout import finished
from .registry import Replacement
from .scattering import add_at, is_one_of, planes, put_last

_BOTH = ("cuda", "cpu")


def _put(values: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Return `values` with the elements of `source` at `index`, which counts all elements.

    Raises:
        RuntimeError, IndexError: as torch's own kernel, which raises its alert before it checks.
    """
    places = _checked(values, index, source)
    flat, new = values.reshape(-1), source.reshape(-1)
    if accumulate:
        return _added(flat, places, new).to(values.dtype).view(values.shape)
    return put_last(flat, places, new).view(values.shape)


def _added(flat: Tensor, places: Tensor, new: Tensor) -> Tensor:
    """Return the values with others added at places; floats in the type in which they are added."""
    if not flat.is_floating_point():
        return flat.index_put((places,), new, accumulate=True)
    own = torch.arange(len(flat), device=flat.device)
    return add_at(torch.cat([own, places]), torch.cat([flat, new]), len(flat))


def _checked(values: Tensor, index: Tensor, source: Tensor) -> Tensor:
    """Return the places that `index` means, none of them below zero."""
    if index.dtype != torch.long:
        raise IndexError(f"put_(): expected an index of dtype int64, got {index.dtype}")
    if values.dtype != source.dtype:
        raise RuntimeError(
            f"put_(): expected values and source of one dtype, got {values.dtype} and "
            f"{source.dtype}"
        )
    if index.numel() != source.numel():
        raise RuntimeError(
            f"put_(): expected as many source values as places, got {source.numel()} values and "
            f"{index.numel()} places"
        )
    places, size = index.reshape(-1), values.numel()
    if size == 0 and len(places):
        raise IndexError("put_(): cannot put values into a tensor without elements")
    # One that is out of range stays so, and the operation that writes there tells.
    return torch.where((places < 0) & (places >= -size), places + size, places)


def _put_agrees(
    result: Tensor,
    native: Tensor,
    values: Tensor,
    index: Tensor,
    source: Tensor,
    accumulate: bool = False,
) -> bool:
    places, flat, new = _checked(values, index, source), values.reshape(-1), source.reshape(-1)
    if not accumulate:
        return is_one_of(result.reshape(-1), flat, places, new)
    if not values.is_floating_point():
        return similar(result, native)
    magnitude = _added(flat.abs(), places, new.abs())
    longest = _added(
        torch.zeros_like(flat, dtype=torch.long), places, torch.ones_like(places)
    ).max()
    return near(result.reshape(-1), native.reshape(-1), magnitude, 1 + int(longest))


def _unpool(
    dims: int,
    inputs: Tensor,
    indices: Tensor,
    output_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (),
) -> Tensor:
    """Return planes of `output_size` with each input at its index, and zeros elsewhere.

    Raises:
        RuntimeError: as torch's own kernel, which raises its alert before it checks.
    """
    if any(step <= 0 for step in stride) or 0 in inputs.shape[1:]:
        raise RuntimeError(
            f"max_unpool{dims}d(): expected strides above zero, and an input that has elements, "
            f"got {[*stride]} and an input of shape {[*inputs.shape]}"
        )
    places = _places(dims, inputs, indices, output_size)
    shape = [*inputs.shape[:-dims], *output_size]
    zeros = inputs.new_zeros(math.prod(shape))
    if inputs.numel() == 0 or zeros.numel() == 0:
        return zeros.view(shape)
    result = put_last(zeros, places, inputs.reshape(-1)).view(shape)
    # torch keeps the memory format on a CPU, and not on a GPU.
    return finished(result, inputs, inputs if dims == 2 and inputs.is_cpu else None)


def _places(dims: int, inputs: Tensor, indices: Tensor, output_size: Sequence[int]) -> Tensor:
    name = f"max_unpool{dims}d()"
    if indices.dtype != torch.long:
        raise RuntimeError(f"{name}: expected indices of dtype int64, got {indices.dtype}")
    if len(output_size) != dims or inputs.dim() not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"{name}: expected an output size of {dims} dimensions and an input of {dims + 1} or "
            f"{dims + 2}, got {[*output_size]} and an input of shape {[*inputs.shape]}"
        )
    if inputs.shape != indices.shape:
        raise RuntimeError(
            f"{name}: expected indices of the input's shape {[*inputs.shape]}, got "
            f"{[*indices.shape]}"
        )
    size = math.prod(output_size)
    places = planes(indices, dims, size)
    # One outside of its plane is moved outside of the whole memory: what writes there tells.
    is_inside = (indices >= 0) & (indices < size)
    return torch.where(is_inside.reshape(places.shape), places, len(places) * size).reshape(-1)


def _unpool_agrees(
    dims: int,
    result: Tensor,
    native: Tensor,
    inputs: Tensor,
    indices: Tensor,
    output_size: Sequence[int],
    *_: object,
) -> bool:
    places = _places(dims, inputs, indices, output_size)
    flat = result.reshape(-1)
    return is_one_of(flat, torch.zeros_like(flat), places, inputs.reshape(-1))


REPLACEMENTS = (
    Replacement("aten::put_", _put, _put_agrees, alert="put_", devices=_BOTH, carriers=(2,)),
    *(
        Replacement(
            f"aten::max_unpool{dims}d",
            partial(_unpool, dims),
            partial(_unpool_agrees, dims),
            alert=f"max_unpooling{dims}d_forward",
            outs=("out",),
            devices=_BOTH,
        )
        for dims in (2, 3)
    ),
)
