"""Products, recurrent networks and other operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from .base import Call, Inputs, Operation, gradient, on_floats


def _product(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[[Inputs], Call]:
    def make(t: Inputs) -> Call:
        return partial(function, *(t.randn(*shape) for shape in shapes))

    return make


def _sparse_bmm(t: Inputs) -> Call:
    dense = t.randn(4, 64, 64)
    sparse = (dense * (dense > 1)).to_sparse()
    return partial(torch.bmm, sparse, t.randn(4, 64, 64))


def _recurrent(t: Inputs, kind: str) -> Call:
    network = getattr(torch.nn, kind)(64, 64, 2, device=t.device)
    x = t.randn(32, t.batch, 64)
    weights = list(network.parameters())
    return lambda: torch.autograd.grad(network(x)[0].square().sum(), weights)


def _resize_quantized(t: Inputs) -> Call:
    quantized = torch.quantize_per_tensor(torch.ones(16, device=t.device), 0.1, 0, torch.qint8)
    return lambda: quantized.clone().resize_(16).int_repr()


def products() -> list[Operation]:
    return [*_products(), *_networks()]


def _products() -> list[Operation]:
    deep = 65536  # an inner dimension that cuBLAS splits
    op = Operation
    return [
        op("mm, split-K shape", _product(torch.mm, (64, deep), (deep, 64))),
        op("mm", _product(torch.mm, (512, 512), (512, 512))),
        op(
            "addmm, split-K shape",
            _product(torch.addmm, (64, 64), (64, deep), (deep, 64)),
            ("addmm", "addmm.decomposed"),
        ),
        op("linear", _product(F.linear, (64, deep), (64, deep)), ("nn.functional.linear",)),
        op("addr", _product(torch.addr, (512, 512), (512,), (512,)), ("addr",)),
        op("bmm, sparse", _sparse_bmm, ("bmm",)),
        op(
            "multi_dot backward",
            lambda t: gradient(
                lambda a, b, c: torch.linalg.multi_dot((a, b, c)),
                *(t.randn(128, 128) for _ in range(3)),
            ),
            ("linalg.multi_dot",),
        ),
        op("linalg.cond", _product(torch.linalg.cond, (64, 64)), ("linalg.cond",)),
        op("pinverse backward", on_floats(torch.pinverse, 64, 64, back=True), ("pinverse",)),
        op(
            "stft backward",
            on_floats(
                lambda x: torch.view_as_real(
                    torch.stft(x, 256, window=torch.ones_like(x[:256]), return_complex=True)
                ),
                2**14,
                back=True,
            ),
            ("stft",),
        ),
    ]


def _networks() -> list[Operation]:
    op = Operation
    return [
        op("LSTM, weight gradients", partial(_recurrent, kind="LSTM"), ()),
        op("GRU, weight gradients", partial(_recurrent, kind="GRU"), ()),
        op(
            "resize_ of a quantized tensor",
            _resize_quantized,
            ("Tensor.resize_", "quantized_resize_cpu_"),
        ),
    ]
