"""Decorators that keep `torch.compile` out of the package's own functions.

A traced function may seed and draw in another order than in eager mode.
"""

from __future__ import annotations

from typing import TypeVar, cast

from .torch_internals import hide_from_compiler

F = TypeVar("F")


def opaque(function: F) -> F:
    """Return `function`; the compiler traces neither `function` nor its callees."""
    return cast(F, hide_from_compiler(function, recursive=True))


def skipped(function: F) -> F:
    """Return `function`; the compiler traces its callees, but not `function` itself."""
    return cast(F, hide_from_compiler(function, recursive=False))
