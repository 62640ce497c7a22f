"""Keeps `torch.compile` out of the toolkit's own functions.

Traced into, seeding and drawing can be put in another order than in eager mode.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch

F = TypeVar("F")

# `torch.compiler.disable` is the public way to say it, but imports the whole compiler
# (1.7 s); this is the part of torch that it ends in, loaded with torch itself. Where
# torch lacks it, before 2.7, the public way is taken.
_eval_frame: Any = torch._C._dynamo.eval_frame


def opaque(function: F) -> F:
    """Return `function` such that the compiler traces neither it nor what it calls."""
    return cast(F, _disable(function, recursive=True))


def skipped(function: F) -> F:
    """Return `function` such that the compiler traces what it calls, but not itself."""
    return cast(F, _disable(function, recursive=False))


def _disable(function: Any, recursive: bool) -> Any:
    if not hasattr(_eval_frame, "set_code_exec_strategy"):
        disable: Any = torch.compiler.disable
        return disable(function, recursive=recursive)
    actions = _eval_frame._FrameAction
    strategy = _eval_frame._FrameExecStrategy(
        actions.SKIP, actions.SKIP if recursive else actions.DEFAULT
    )
    _eval_frame.set_code_exec_strategy(function.__code__, strategy)
    function._torchdynamo_disable = True  # not into a caller's graph either
    return function
