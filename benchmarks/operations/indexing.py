"""Indexing, scattering and gathering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from .base import Call, Inputs, Operation, gradient

CROWDED, SPREAD = "many collisions", "few collisions"


def _places(t: Inputs, kind: str) -> tuple[torch.Tensor, int]:
    count = 64 if kind == CROWDED else t.n
    return t.below(count, t.n), count


def _indexed(method: str, kind: str, *reduce: Any, **options: Any) -> Callable[[Inputs], Call]:
    """Return a maker of `ones.method(0, index, source)`, with a reduction if given."""

    def make(t: Inputs) -> Call:
        index, count = _places(t, kind)
        source = t.randn(t.n).abs() + 0.5
        source = source**0.001 if "prod" in reduce else source  # keeps the product finite
        target = torch.ones(count, device=t.device)
        return lambda: getattr(target, method)(0, index, source, *reduce, **options)

    return make


def _index_put(accumulate: bool, kind: str) -> Callable[[Inputs], Call]:
    def make(t: Inputs) -> Call:
        index, count = _places(t, kind)
        source, target = t.randn(t.n), torch.zeros(count, device=t.device)
        return lambda: target.index_put((index,), source, accumulate=accumulate)

    return make


def _put(accumulate: bool) -> Callable[[Inputs], Call]:
    def make(t: Inputs) -> Call:
        index, count = _places(t, CROWDED)
        source, target = t.randn(t.n), torch.zeros(count, device=t.device)
        return lambda: target.put(index, source, accumulate=accumulate)

    return make


def _rows(function: Callable[..., Any], kind: str) -> Callable[[Inputs], Call]:
    """Return a maker of the gradient of reading rows, in which each read adds into its row."""

    def make(t: Inputs) -> Call:
        index, count = _places(t, kind)
        return gradient(lambda table: function(table, index), t.randn(count, 4))

    return make


def _bags(mode: str) -> Callable[[Inputs], Call]:
    def make(t: Inputs) -> Call:
        index = t.below(64, t.n // 8, 8)
        return gradient(lambda table: F.embedding_bag(index, table, mode=mode), t.randn(64, 16))

    return make


def indexing() -> list[Operation]:
    return [*_by_collisions(CROWDED), *_by_collisions(SPREAD), *_reductions(), *_others()]


def _by_collisions(kind: str) -> list[Operation]:
    add = Operation
    return [
        add(f"index_add, {kind}", _indexed("index_add", kind), ("index_add",)),
        add(f"scatter_add, {kind}", _indexed("scatter_add", kind), ("Tensor.scatter_add_",)),
        add(
            f"index_put accumulate, {kind}",
            _index_put(True, kind),
            ("Tensor.index_put",),
        ),
        add(
            f"gather backward, {kind}",
            _rows(lambda x, i: x[:, 0].gather(0, i), kind),
            ("gather", "take_along_dim"),
        ),
        add(
            f"embedding backward, {kind}",
            _rows(lambda x, i: F.embedding(i, x), kind),
            ("nn.Embedding",),
        ),
        add(
            f"index_select backward, {kind}",
            _rows(lambda x, i: x.index_select(0, i), kind),
            ("index_select",),
        ),
        add(
            f"x[[...]] backward, {kind}",
            _rows(lambda x, i: x[i], kind),
            ("Tensor.__getitem__",),
        ),
    ]


def _reductions() -> list[Operation]:
    found = []
    for reduce in ("sum", "prod", "mean", "amax"):
        names = ["Tensor.scatter_reduce"]
        names.append(f"scatter_reduce_cuda_{'prod_' if reduce == 'prod' else 'kernel'}")
        make = _indexed("scatter_reduce", CROWDED, reduce)
        found.append(Operation(f"scatter_reduce {reduce}", make, tuple(names)))
    for reduce in ("prod", "mean", "amax"):
        make = _indexed("index_reduce", CROWDED, reduce)
        entries = ("index_reduce_cuda", f"index_reduce.{reduce}")
        found.append(Operation(f"index_reduce {reduce}", make, entries))
    return found


def _others() -> list[Operation]:
    return [
        Operation("index_put", _index_put(False, CROWDED), ("Tensor.index_put",)),
        Operation("put accumulate", _put(True), ("Tensor.put_", "put_")),
        Operation("put", _put(False), ("Tensor.put_", "put_")),
        Operation(
            "index_copy", _indexed("index_copy", CROWDED), ("index_copy", "Tensor.index_copy")
        ),
        Operation("scatter", _indexed("scatter", CROWDED), ("Tensor.scatter", "scatter_cuda_")),
        Operation(
            "repeat_interleave backward",
            lambda t: gradient(lambda x: x.repeat_interleave(t.n // 64, 0), t.randn(64)),
            ("repeat_interleave",),
        ),
        Operation(
            "embedding_bag max backward",
            _bags("max"),
            ("nn.EmbeddingBag", "embedding_bag_backward_cuda_max", "nn.functional.embedding_bag"),
        ),
        Operation(
            "embedding_bag sum backward",
            _bags("sum"),
            ("nn.functional.embedding_bag",),
        ),
    ]
