"""Sums and writes at places that are read from a tensor, each in one fixed order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .agreement import accumulation


def planes(indices: Tensor, dims: int, size: int) -> Tensor:
    """Return the places in the whole memory of indices that count in the last `dims` dimensions.

    Args:
        indices: of shape [..., *the last dims].
        dims: the number of dimensions of a plane.
        size: the number of elements of a plane that the indices point into.

    Returns:
        A tensor of shape [planes, elements of a plane of `indices`].
    """
    count = math.prod(indices.shape[: indices.dim() - dims])
    first = torch.arange(count, device=indices.device) * size
    return indices.reshape(count, math.prod(indices.shape[-dims:])) + first[:, None]


def add_at(places: Tensor, values: Tensor, size: int) -> Tensor:
    """Return the sums of the values that have the same place, of length `size`.

    With deterministic algorithms `index_put_` sorts the places, stably, and adds in that order.
    """
    total = torch.zeros(size, dtype=accumulation(values.dtype), device=values.device)
    if values.numel() == 0:
        return total
    terms = values.reshape(-1).to(total.dtype)
    return total.index_put_((places.reshape(-1),), terms, accumulate=True)


def put_last(values: Tensor, places: Tensor, new: Tensor) -> Tensor:
    """Return a flat tensor with new values at places; the last of several at one place stays.

    This is what one thread of a CPU does.

    Args:
        values: the values so far.
        places: indices into `values`, from 0.
        new: as many values as there are places.
    """
    # The largest number of a write to each place: of integers it is the same in every order.
    numbers = torch.arange(len(places), device=places.device)
    last = torch.zeros_like(values, dtype=torch.long).scatter_reduce_(0, places, numbers, "amax")
    # All writes to a place write the value of the last one, so that their order does not matter.
    return values.index_put((places,), new[last[places]])


def is_one_of(result: Tensor, values: Tensor, places: Tensor, new: Tensor) -> bool:
    """Return whether some order of the writes gives `result`: torch leaves the order open."""
    written = torch.zeros_like(values, dtype=torch.long)
    written.index_put_((places,), torch.ones_like(places), accumulate=True)
    found = _alike(result[places], new).long()
    matches = torch.zeros_like(written).index_put_((places,), found, accumulate=True)
    return bool(torch.where(written > 0, matches > 0, _alike(result, values)).all())


def _alike(a: Tensor, b: Tensor) -> Tensor:
    return (a == b) | ((a != a) & (b != b))
