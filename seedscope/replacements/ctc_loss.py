"""The CTC loss: the gradient of the log-probabilities.

It needs the posterior probability of each state at each time, which is the product of the forward
variables alpha, known from the loss, and the backward variables beta. Beta is the alpha of the
same problem with time and targets reversed, so that torch's own forward computes it.

See: A. Graves et al., Connectionist Temporal Classification, ICML 2006, equations 9 to 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .agreement import near
from .registry import Replacement

_aten = torch.ops.aten


class _Problem(NamedTuple):
    """A batch of B sequences of T times, with C classes and targets of at most S labels.

    Attributes:
        log_probs: of shape [T, B, C].
        labels: the targets, of shape [B, S]; blank after the end.
        times: the number of times of each sequence, of shape [B].
        lengths: the number of labels of each target, of shape [B].
        blank: the class of the blank.
    """

    log_probs: Tensor
    labels: Tensor
    times: Tensor
    lengths: Tensor
    blank: int

    @property
    def is_label(self) -> Tensor:
        return torch.arange(self.labels.shape[1], device=self.labels.device) < self.lengths[:, None]

    @property
    def is_time(self) -> Tensor:
        """Return whether each time is one of the sequence, of shape [B, T]."""
        every = torch.arange(len(self.log_probs), device=self.labels.device)
        return every < self.times[:, None]


def _problem(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    blank: int,
) -> _Problem:
    device = log_probs.device
    times = torch.tensor([*input_lengths], device=device)
    lengths = torch.tensor([*target_lengths], device=device)
    place = torch.arange(max(target_lengths, default=0), device=device)[None]
    if targets.dim() == 1:  # one after another
        first = lengths.cumsum(0) - lengths
        padded = torch.nn.functional.pad(targets, (0, place.shape[1]))
        labels = padded[first[:, None] + place]
    else:
        labels = targets[:, : place.shape[1]]
    labels = torch.where(place < lengths[:, None], labels.long(), blank)
    return _Problem(log_probs, labels, times, lengths, blank)


def _reversal(length: Tensor, size: int) -> Tensor:
    """Return the indices that reverse the first `length` of `size` items, of shape [B, size]."""
    every = torch.arange(size, device=length.device)[None]
    return torch.where(every < length[:, None], length[:, None] - 1 - every, every)


def _log_beta(
    problem: _Problem, input_lengths: Sequence[int], target_lengths: Sequence[int]
) -> Tensor:
    """Return the backward variables, of shape [B, T, 2 S + 1]."""
    log_probs, labels, times, lengths, blank = problem
    time_order = _reversal(times, len(log_probs))
    reversed_probs = log_probs.gather(0, time_order.t()[:, :, None].expand(log_probs.shape))
    reversed_labels = labels.gather(1, _reversal(lengths, labels.shape[1]))
    _, alpha = _aten._ctc_loss(
        reversed_probs, reversed_labels, [*input_lengths], [*target_lengths], blank, False
    )
    state_order = _reversal(2 * lengths + 1, alpha.shape[2])
    alpha = alpha.gather(1, time_order[:, :, None].expand(alpha.shape))
    beta: Tensor = alpha.gather(2, state_order[:, None].expand(alpha.shape))
    return beta


def _posteriors(
    problem: _Problem,
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    loss: Tensor,
    log_alpha: Tensor,
) -> Tensor:
    """Return the posterior probability of each class at each time, of shape [B, T, C]."""
    log_probs, labels, _, lengths, blank = problem
    times, batch, classes = log_probs.shape
    states = 2 * labels.shape[1] + 1
    of_state = torch.full((batch, states), blank, device=labels.device)
    of_state[:, 1::2] = labels
    by_time = log_probs.transpose(0, 1)
    emitted = by_time.gather(2, of_state[:, None].expand(batch, times, states))
    log_beta = _log_beta(problem, input_lengths, target_lengths)
    found = torch.exp(log_alpha[:, :, :states] + log_beta + loss[:, None, None] - emitted)
    is_state = torch.arange(states, device=labels.device) < 2 * lengths[:, None] + 1
    found = torch.where(problem.is_time[:, :, None] & is_state[:, None], found, 0)
    # A row of all times for each label. Labels after the end, which are zero, go to all classes in
    # turn: long runs of one index are slow.
    spread = torch.arange(labels.shape[1], device=labels.device) % classes
    rows = torch.where(problem.is_label, labels, spread)
    rows = rows + torch.arange(batch, device=labels.device)[:, None] * classes
    total = found.new_zeros(batch * classes, times)
    terms = found[:, :, 1::2].transpose(1, 2).reshape(-1, times)
    total.index_put_((rows.reshape(-1),), terms, accumulate=True)
    total = total.view(batch, classes, times)
    total[:, blank] += found[:, :, 0::2].sum(2)
    return total.transpose(1, 2)


def _backward(
    gradient: Tensor,
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    loss: Tensor,
    log_alpha: Tensor,
    blank: int,
    zero_infinity: bool = False,
) -> Tensor:
    """Return the gradient of the log-probabilities, of shape [T, B, C].

    `gradient` is that of the loss of each sequence, `loss` the negative log-likelihood of each,
    both of shape [B]; `log_alpha` are the forward variables, of shape [B, T, 2 S + 1].
    """
    problem = _problem(log_probs, targets, input_lengths, target_lengths, blank)
    posteriors = _posteriors(problem, input_lengths, target_lengths, loss, log_alpha)
    result = gradient[:, None, None] * (log_probs.transpose(0, 1).exp() - posteriors)
    is_zero = ~problem.is_time[:, :, None]
    if zero_infinity:
        is_zero = is_zero | loss.isinf()[:, None, None]
    return result.masked_fill(is_zero, 0).transpose(0, 1).contiguous()


def _agrees(
    result: Tensor,
    native: Tensor,
    gradient: Tensor,
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    loss: Tensor,
    log_alpha: Tensor,
    blank: int,
    zero_infinity: bool = False,
) -> bool:
    """Agree to the rounding of the logarithms, which are as large as the loss, at each time.

    The gradient of an infinite loss is not a number. torch's kernels differ in which classes tell
    that.
    """
    problem = _problem(log_probs, targets, input_lengths, target_lengths, blank)
    posteriors = _posteriors(problem, input_lengths, target_lengths, loss, log_alpha)
    size = gradient.abs() * (1 + loss.abs())
    magnitude = size[:, None, None] * (log_probs.transpose(0, 1).exp() + posteriors)
    magnitude = magnitude.transpose(0, 1).nan_to_num(0, 0, 0)
    if not zero_infinity:
        is_infinite = loss.isinf()[None, :, None]
        result, native = (torch.where(is_infinite, 0, one) for one in (result, native))
    return near(result, native, magnitude, len(log_probs))


REPLACEMENTS = (
    Replacement("aten::_ctc_loss_backward", _backward, _agrees, alert="ctc_loss_backward"),
)
