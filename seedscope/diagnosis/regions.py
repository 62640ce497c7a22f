"""Compiled regions: each call of one is one operation of the trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..support.torch_internals import compiled_graph
from .tracer import Tracer

#: What opens a region.
ADVICE = "torch.compiler.set_stance('force_eager') runs what is inside as operations"


@contextmanager
def seen_regions(tracer: Tracer) -> Iterator[None]:
    """Have the tracer write down each call of a compiled region."""
    kind = compiled_graph()
    if kind is None:
        yield
        return
    original = kind.__call__

    def call(region: Any, inputs: Any) -> Any:
        return tracer.region(original, region, inputs)

    kind.__call__ = call
    try:
        yield
    finally:
        kind.__call__ = original
