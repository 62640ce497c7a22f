"""Scans, counting, ordering and sums."""

from __future__ import annotations

from functools import partial

import torch

from .base import Inputs, Operation, on_floats


def scans() -> list[Operation]:
    op = Operation
    return [
        op("cumsum", on_floats(lambda x: x.cumsum(0)), ("cumsum",)),
        op("cumprod", on_floats(lambda x: (1 + x / 1e4).cumprod(0))),
        op("logcumsumexp", on_floats(lambda x: x.logcumsumexp(0))),
        op("cummax backward", on_floats(lambda x: x.cummax(0), back=True), ("cummax",)),
        op("cummin backward", on_floats(lambda x: x.cummin(0), back=True), ("cummin",)),
        op("prod backward", on_floats(lambda x: (1 + x / 1e4).prod(), back=True), ("prod",)),
        op("sum", on_floats(torch.sum)),
        op("bincount", lambda t: partial(torch.bincount, t.below(64, t.n))),
        op(
            "bincount with weights",
            lambda t: partial(torch.bincount, t.below(64, t.n), t.randn(t.n)),
            ("bincount", "_bincount_cuda"),
        ),
        op(
            "histc",
            on_floats(lambda x: x.histc(64)),
            ("histc", "_histc_cuda with floating point input"),
        ),
        op(
            "median with indices",
            lambda t: partial(torch.median, t.below(64, t.n).float(), 0),
            ("median", "median CUDA with indices output"),
        ),
        op("kthvalue", lambda t: partial(torch.kthvalue, t.below(64, t.n).float(), t.n // 3)),
        op("topk", lambda t: partial(torch.topk, t.below(64, t.n).float(), 100)),
        op("sort", lambda t: partial(torch.sort, t.below(64, t.n).float())),
        op("sort stable", lambda t: partial(torch.sort, t.below(64, t.n).float(), stable=True)),
        op("unique", lambda t: partial(torch.unique, t.below(64, t.n), return_counts=True)),
        op(
            "torch.empty after free",
            lambda t: partial(_read_uninitialised, t),
            ("utils.deterministic.fill_uninitialized_memory",),
        ),
    ]


def _read_uninitialised(t: Inputs) -> torch.Tensor:
    """Return memory that another tensor, with other values each time, has just freed."""
    t.randn(4096)
    return torch.empty(4096, device=t.device)
