"""Losses and sampling."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from .base import Call, Inputs, Operation, gradient


def _ctc(t: Inputs) -> Call:
    time, batch, classes = 128, t.batch * 4, 20
    targets = 1 + t.below(classes - 1, batch, 30)
    lengths = [torch.full((batch,), size, device=t.device) for size in (time, 30)]
    return gradient(
        lambda x: F.ctc_loss(x.log_softmax(2), targets, *lengths), t.randn(time, batch, classes)
    )


def _grid(t: Inputs, dims: int) -> Call:
    x = t.image(dims)
    grid = t.randn(t.batch, *[2 * x.shape[-1]] * dims, dims) / 2
    return gradient(partial(F.grid_sample, align_corners=False), x, grid)


def losses() -> list[Operation]:
    found = [
        Operation(
            "nll_loss2d",
            lambda t: partial(F.nll_loss, t.image(2, 10), t.below(10, t.batch, t.side, t.side)),
            ("nn.NLLLoss", "nll_loss2d_forward_out_cuda_template"),
        ),
        Operation(
            "linear and cross_entropy backward",
            _linear_cross_entropy,
            (
                "nn.functional.linear_cross_entropy",
                "nn.functional.linear_cross_entropy.chunked",
                "nn.functional.linear_cross_entropy.chunked_none",
                "nn.LinearCrossEntropyLoss",
            ),
        ),
        Operation(
            "binary_cross_entropy_with_logits backward",
            lambda t: gradient(
                F.binary_cross_entropy_with_logits, t.randn(t.n), t.randn(t.n).sigmoid()
            ),
            ("nn.functional.binary_cross_entropy_with_logits",),
        ),
        Operation("ctc_loss backward", _ctc, ("nn.CTCLoss", "ctc_loss_backward_gpu")),
    ]
    for dims in (2, 3):
        entries = (
            "nn.functional.grid_sample",
            f"grid_sampler_{dims}d",
            f"grid_sampler_{dims}d_backward_cuda",
        )
        make = partial(_grid, dims=dims)
        found.append(Operation(f"grid_sample {dims}d backward", make, entries))
    return found


def _linear_cross_entropy(t: Inputs) -> Call:
    x, labels = t.randn(512, 64), t.below(1000, 512)
    return gradient(lambda w: F.cross_entropy(F.linear(x, w), labels), t.randn(1000, 64))
