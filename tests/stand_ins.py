"""Kernels at the CPU's key that raise as CUDA's do, so that replacements run without a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from seedscope.replacements import kernels, registry
from seedscope.replacements.built_in import BUILT_IN
from seedscope.replacements.registry import Replacement

_TEXT = (
    "{} does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True)'"
)


def raising(name: str, alert: str, calls: list[str]) -> torch.library.Library:
    """Register a kernel that raises under deterministic algorithms, until the library is dropped.

    Each call of it adds `name` to `calls`.
    """
    native = torch.library.get_kernel(name, "CPU").call_boxed

    def kernel(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        mode = torch.get_deterministic_debug_mode()
        if mode == 2:
            raise RuntimeError(_TEXT.format(alert))
        if mode == 1:
            warnings.warn(_TEXT.format(alert), stacklevel=1)
        return native(keyset, *args, **kwargs)

    library = torch.library.Library(name.partition("::")[0], "IMPL")
    with warnings.catch_warnings():  # torch warns of the first kernel that is overridden
        warnings.simplefilter("ignore")
        library.impl(name, kernel, "CPU", with_keyset=True, allow_override=True)
    return library


@contextmanager
def cpu_that_raises(replacements: tuple[Replacement, ...] = BUILT_IN) -> Iterator[list[str]]:
    """Have each operation that CUDA does not repeat raise on the CPU, and be replaced there.

    The list that is yielded has the name of each native kernel that was called.
    """
    kernels.remove()
    before = dict(registry._added)
    calls: list[str] = []
    libraries = []
    for one in replacements:
        if "cpu" in one.devices or not registry.exists(one.operation):
            continue
        alert = (one.alert or one.operation) + "_cuda"
        names = [one.operation, *(f"{one.operation}.{out}" for out in one.outs)]
        libraries += [raising(name, alert, calls) for name in names]
        registry.add(one._replace(devices=("cpu",)))
    kernels.renew()
    try:
        yield calls
    finally:
        kernels.remove()
        libraries.clear()
        registry._added.clear()
        registry._added.update(before)
        kernels.renew()
