"""Whether a replacement's result is one that torch's own kernel may give.

Both results add the same terms, each in an order of its own. So they differ by rounding alone, at
most by `2 (n + 8) eps` times the sum of the terms' absolute values, where n is the number of terms
in the longest sum, and 8 stands for the roundings of the weights and of the products.

See: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Agrees = Callable[..., bool]


def accumulation(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which values of `dtype` are added, which has 32 bits or more."""
    return torch.promote_types(dtype, torch.float32)


def near(
    result: Tensor, native: Tensor, magnitude: Tensor, terms: int, slack: Tensor | float = 0
) -> bool:
    """Return whether two results differ by no more than rounding explains.

    Args:
        result: the replacement's result.
        native: torch's result, with as many bits or more.
        magnitude: the same sums over the absolute values of the terms, not below zero.
        terms: the number of terms in the longest sum.
        slack: how much more they may differ, because of what was rounded before the sums.
    """
    exact = accumulation(result.dtype)
    kind = torch.finfo(exact)
    bound = magnitude.to(exact.to_real(), copy=True).mul_(2 * (terms + 8) * kind.eps)
    bound.add_(native.abs(), alpha=torch.finfo(result.dtype).eps).add_(kind.tiny).add_(slack)
    difference = native.to(exact, copy=True).sub_(result).abs()
    # Infinite values have no difference, and NaN equals nothing.
    rounded = native.to(result.dtype)
    is_near = (difference <= bound) | (rounded == result) | (rounded.isnan() & result.isnan())
    return bool(is_near.all())


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have the same type, shape and bits; NaN equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    a, b = _as_real(a), _as_real(b)
    kind = kinds[a.element_size()]
    return torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))


def equal(result: Any, native: Any, *args: Any, **kwargs: Any) -> bool:
    """Agree if all values are equal."""
    pairs = zip(tensors(result), tensors(native), strict=True)
    return all(bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in pairs)


def similar(result: Any, native: Any, *args: Any, **kwargs: Any) -> bool:
    """Agree if no value differs by more than 2,000 times the rounding error of the largest."""
    for ours, theirs in zip(tensors(result), tensors(native), strict=True):
        if not ours.is_floating_point() and not ours.is_complex():
            if not torch.equal(ours, theirs):
                return False
        elif ours.numel():
            ours, theirs = _as_real(ours), _as_real(theirs)
            largest = theirs.abs().nan_to_num(posinf=0).amax().expand(theirs.shape)
            if not near(ours, theirs, largest, terms=1000):
                return False
    return True


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def tensors(result: Any) -> list[Tensor]:
    """Return the tensors in a result or arguments, without those that were not asked for."""
    if isinstance(result, Tensor):
        return [result]
    return [one for one in tree_leaves(result) if isinstance(one, Tensor)]
