"""Keeps `torch.compile` out of the toolkit's own functions.

Traced into, seeding and drawing can be put in another order than in eager mode.
"""

from __future__ import annotations

from typing import TypeVar, cast

from .torch_internals import hide_from_compiler

F = TypeVar("F")


def opaque(function: F) -> F:
    """Return `function` such that the compiler traces neither it nor what it calls."""
    return cast(F, hide_from_compiler(function, recursive=True))


def skipped(function: F) -> F:
    """Return `function` such that the compiler traces what it calls, but not itself."""
    return cast(F, hide_from_compiler(function, recursive=False))
