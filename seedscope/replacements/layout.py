"""The memory formats of results, which are those of torch's own kernels."""

from __future__ import annotations

import torch
from torch import Tensor


def finished(values: Tensor, gradient: Tensor, like: Tensor | None = None) -> Tensor:
    """Return new memory with the values, of the gradient's type.

    Args:
        values: the result, in the type in which it was added up; may be the gradient itself.
        gradient: the gradient.
        like: the tensor whose memory format the result has; contiguous by default.
    """
    result = values.to(gradient.dtype).contiguous(memory_format=_format(like))
    return result.clone() if result is gradient else result


def refuse_overlap(tensor: Tensor) -> None:
    """Refuse to write to a tensor that has several elements at one place of the memory.

    Raises:
        RuntimeError: it has.
    """
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach and (stride == 0 or _repeats_a_place(tensor)):
                raise RuntimeError(
                    "unsupported operation: elements of the tensor that is written to share memory "
                    f"(shape {[*tensor.shape]}, strides {[*tensor.stride()]}): clone it first"
                )
            reach += stride * (size - 1)


def _repeats_a_place(tensor: Tensor) -> bool:
    places = torch.zeros(1, dtype=torch.long)
    for stride, size in zip(tensor.stride(), tensor.shape, strict=True):
        places = (places[:, None] + stride * torch.arange(size)).flatten()
    return len(torch.unique(places)) < len(places)


def _format(like: Tensor | None) -> torch.memory_format:
    """Return the memory format that torch suggests for a result of the same kind."""
    if like is not None and not like.is_contiguous():
        if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
            return torch.channels_last
        if like.dim() == 5 and like.is_contiguous(memory_format=torch.channels_last_3d):
            return torch.channels_last_3d
    return torch.contiguous_format
