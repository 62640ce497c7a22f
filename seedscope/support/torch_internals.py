"""Private parts of torch, each beside the public way that is taken where it is missing.

No public way exists where none is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

# ------------------------------------------------------------------------- the compiler

# `torch.compiler.disable` imports the whole compiler (1.7 s). This is the part of torch that
# it ends in, loaded with torch itself, from torch 2.7 on.
_eval_frame: Any = torch._C._dynamo.eval_frame


def hide_from_compiler(function: Any, recursive: bool) -> Any:
    """Return `function`, which `torch.compile` does not trace, nor what it calls if `recursive`."""
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


# ----------------------------------------------------------------- versions and settings


def cudnn_version() -> str | None:
    """Return it without starting a GPU, as `torch.backends.cudnn.version` would."""
    private: Any = getattr(torch._C, "_cudnn", None)
    if hasattr(private, "getVersionInt"):
        return str(private.getVersionInt())
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]


#: Precision of a backend and an operation, since torch 2.9; None before. The public
#: `torch.backends.mkldnn.fp32_precision = ...` writes the general precision instead (torch
#: 2.13), so there is no public way to restore that of oneDNN.
read_precision: Any = getattr(torch._C, "_get_fp32_precision_getter", None)
write_precision: Any = getattr(torch._C, "_set_fp32_precision_setter", None)


def cublas_reader(name: str) -> Callable[[], Any] | None:
    """Return what reads the flag `name` of `torch.backends.cuda.matmul`; None: there is none.

    A read through `torch.backends.cuda.matmul` takes 0.6 us instead of 0.03, and needs two to
    see the pair (allowed, allowed with split-K) that newer torch has for one name.
    """
    reader: Callable[[], Any] | None = getattr(torch._C, f"_get_cublas_{name}", None)
    return reader


# ------------------------------------------------------------------------------- modules


def children(module: nn.Module) -> Iterable[nn.Module | None]:
    """Return the direct submodules, in a fifth of the time of `module.children()`.

    That makes a name for each. None stands for a submodule that is not set.
    """
    private: dict[str, nn.Module | None] | None = getattr(module, "_modules", None)
    return module.children() if private is None else private.values()


# --------------------------------------------- accelerators that have not been initialised


class Waiting(NamedTuple):
    """What will happen to an accelerator's generators when it is initialised.

    torch queues `manual_seed` and `set_rng_state` until then. Seeds are kept in a
    tracker, as (callback, stack) pairs, and run after all other queued calls.
    `_lazy_seed_tracker` and `_queued_calls` belong to torch.cuda, xpu and mtia; there is no
    public way to see a seed that waits.
    """

    seed_all: Any
    seed_one: Any
    order: list[Any]  # torch makes a new list for each change
    queue: list[Any]


def has_queue(module: Any) -> bool:
    return hasattr(module, "_queued_calls")


def queued_calls(module: Any) -> list[Any]:
    calls: list[Any] = module._queued_calls
    return calls


def read_waiting(module: Any) -> Waiting | None:
    """Return what waits for the device module's start; None where torch keeps no such thing."""
    tracker = getattr(module, "_lazy_seed_tracker", None)
    if tracker is None:
        return None
    return Waiting(
        tracker.manual_seed_all_cb,
        tracker.manual_seed_cb,
        tracker.call_order,
        module._queued_calls.copy(),
    )


def write_waiting(module: Any, waiting: Waiting) -> None:
    """Let `waiting` be all that waits for the device module's start."""
    tracker = module._lazy_seed_tracker
    tracker.manual_seed_all_cb = waiting.seed_all
    tracker.manual_seed_cb = waiting.seed_one
    tracker.call_order = waiting.order
    module._queued_calls[:] = waiting.queue
