"""The loss of images whose every pixel has a class: `nll_loss2d`, and so `cross_entropy`."""

from __future__ import annotations

import torch
from torch import Tensor

from .agreement import accumulation, near
from .registry import Replacement

_NONE, _MEAN = 0, 1  # the reductions of torch; 2 is the sum
_LONGEST_SUM = 4096  # torch adds in blocks and these in a tree, so that no sum is longer


def _terms(
    inputs: Tensor, target: Tensor, weight: Tensor | None, ignored: int
) -> tuple[Tensor, Tensor]:
    """Return the loss and the weight of each pixel, in the type in which they are added.

    Args:
        inputs: the log-probabilities, of shape [images, classes, height, width].
        target: the class of each pixel, of shape [images, height, width].
        weight: the weight of each class, 1 by default.
        ignored: the class of pixels that count as zero.
    """
    dtype = accumulation(inputs.dtype)
    counts = target != ignored
    classes = torch.where(counts, target, 0).long()
    weights = (
        counts.to(dtype) if weight is None else torch.where(counts, weight.to(dtype)[classes], 0)
    )
    picked = inputs.gather(1, classes[:, None])[:, 0].to(dtype)
    return torch.where(counts, -picked * weights, 0), weights


def _forward(
    inputs: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int
) -> tuple[Tensor, Tensor]:
    """Return the loss and the total weight.

    Raises:
        RuntimeError: as torch's own kernel, which raises its alert before it checks.
    """
    _check(inputs, target, weight)
    losses, weights = _terms(inputs, target, weight, ignored)
    if reduction == _NONE:
        return losses.to(inputs.dtype), inputs.new_zeros(())
    loss, total = losses.sum(), weights.sum()
    if reduction == _MEAN:
        loss = loss / total
    return loss.to(inputs.dtype), total.to(inputs.dtype)


def _check(inputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
    if inputs.dim() != 4 or target.shape != inputs[:, :1].squeeze(1).shape:
        raise RuntimeError(
            "nll_loss2d: expected inputs of shape [images, classes, height, width] and a target "
            f"without the classes, got {[*inputs.shape]} and {[*target.shape]}"
        )
    if weight is not None and weight.shape != inputs.shape[1:2]:
        raise RuntimeError(
            f"nll_loss2d: expected a weight for each of {inputs.shape[1]} classes, got a weight "
            f"of shape {[*weight.shape]}"
        )


def _agrees(
    result: tuple[Tensor, Tensor],
    native: tuple[Tensor, Tensor],
    inputs: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignored: int,
) -> bool:
    losses, weights = (terms.abs() for terms in _terms(inputs, target, weight, ignored))
    magnitude, total = (losses, weights) if reduction == _NONE else (losses.sum(), weights.sum())
    if reduction == _MEAN:
        magnitude = magnitude / native[1].abs()
        if weight is not None:  # weights of both signs cancel in the divisor, with what was rounded
            magnitude = magnitude * (total / native[1].abs())
    terms = min(target.numel(), _LONGEST_SUM)
    return near(result[0], native[0], magnitude, terms) and near(
        result[1], native[1], total if reduction != _NONE else native[1], terms
    )


REPLACEMENTS = (
    Replacement(
        "aten::nll_loss2d_forward",
        _forward,
        _agrees,
        alert="nll_loss2d_forward_out",
        outs=("output",),
    ),
)
