"""Attention through each backend."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from .base import Call, Inputs, Operation


def _attention(t: Inputs, backend: str, length: int, is_backward: bool) -> Call:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # The same number of tokens for each length; on the CPU fewer, in a type that is fast there.
    batch, heads, length = (1, 2, length // 16) if t.small else (16384 // length, 16, length)
    kind = torch.float32 if t.small else torch.bfloat16
    q, k, v = (t.randn(batch, heads, length, 64).to(kind) for _ in range(3))
    which = getattr(SDPBackend, backend)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(which):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    if not is_backward:
        return partial(attend, q, k, v)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    weight = t.randn(*q.shape).to(kind)
    return lambda: torch.autograd.grad(attend(*leaves), leaves, weight)


def attentions() -> list[Operation]:
    return [
        Operation(
            f"attention {backend.partition('_')[0].lower()} {length} {part}",
            partial(_attention, backend=backend, length=length, is_backward=part == "backward"),
        )
        for backend in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
        for length in (1024, 4096, 8192)
        for part in ("forward", "backward")
    ]
