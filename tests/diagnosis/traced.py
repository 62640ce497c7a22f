"""Traces for tests, without a diagnosis around them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import pytest

from seedscope import seeded
from seedscope.diagnosis.trace import Tables, Trace
from seedscope.diagnosis.tracer import Tracer

_M_PERTURB = -6  # https://man7.org/linux/man-pages/man3/mallopt.3.html


def trace(call: Callable[[], Any], tables: Tables | None = None) -> Trace:
    """Return the trace of a call in a scope."""
    tracer = Tracer(tables or Tables())
    with seeded(3, deterministic=False), tracer:
        call()
    return tracer.finish()


def traces(call: Callable[[], Any]) -> list[Trace]:
    """Return the traces of two calls that find other contents in new memory."""
    tables = Tables()
    found = []
    for byte in (0x55, 0xA3):
        fill_new_memory(byte)
        try:
            found.append(trace(call, tables))
        finally:
            fill_new_memory(0)
    return found


def fill_new_memory(byte: int) -> None:
    """Have malloc fill memory with a byte; 0 ends that."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("needs the mallopt of glibc")
    ctypes.CDLL(None).mallopt(_M_PERTURB, byte)
