"""Private parts of torch, each with the public alternative that is used where it is missing.

Where no alternative is named, torch has none.
"""

from __future__ import annotations

import functools
import importlib
import operator
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

# ------------------------------------------------------------------------- the compiler

# `torch.compiler.disable` imports the whole compiler (1.7 s). It ends in this part of torch,
# which is loaded with torch itself and has the needed functions since torch 2.7.
_eval_frame: Any = torch._C._dynamo.eval_frame


def hide_from_compiler(function: Any, recursive: bool) -> Any:
    """Return `function`, hidden from `torch.compile`; if `recursive`, with its callees."""
    if not hasattr(_eval_frame, "set_code_exec_strategy"):
        disable: Any = torch.compiler.disable
        return disable(function, recursive=recursive)
    actions = _eval_frame._FrameAction
    strategy = _eval_frame._FrameExecStrategy(
        actions.SKIP, actions.SKIP if recursive else actions.DEFAULT
    )
    _eval_frame.set_code_exec_strategy(function.__code__, strategy)
    function._torchdynamo_disable = True  # nor is it inlined into a caller's graph
    return function


# ------------------------------------------------------------------------------ autograd

#: Return the number of the backward that runs in this thread, or -1. It is also that of a
#: recomputation by `torch.utils.checkpoint`, with both kinds of checkpointing.
current_backward: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)


# ----------------------------------------------------------------- versions and settings


def cudnn_version() -> str | None:
    """Return the version of cuDNN, or None if only a started GPU could tell it.

    `torch.backends.cudnn.version` would initialise CUDA.
    """
    private: Any = getattr(torch._C, "_cudnn", None)
    if hasattr(private, "getVersionInt"):
        return str(private.getVersionInt())
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]


#: Read and write the precision of a backend and an operation; None before torch 2.9. The
#: public `torch.backends.mkldnn.fp32_precision = ...` writes the general precision instead
#: (torch 2.13), so no public call can restore the precision of oneDNN.
read_precision: Any = getattr(torch._C, "_get_fp32_precision_getter", None)
write_precision: Any = getattr(torch._C, "_set_fp32_precision_setter", None)


def cublas_reader(name: str) -> Callable[[], Any] | None:
    """Return a reader of the flag `name` of `torch.backends.cuda.matmul`, or None.

    A read through `torch.backends.cuda.matmul` takes 0.6 us instead of 0.03. Newer torch
    has a pair (allowed, allowed with split-K) for one name, which takes two such reads.
    """
    reader: Callable[[], Any] | None = getattr(torch._C, f"_get_cublas_{name}", None)
    return reader


# ------------------------------------------------------------------------------- modules


def children(module: nn.Module) -> Iterable[nn.Module | None]:
    """Return the direct submodules; None stands for a submodule that is not set.

    Takes a fifth of the time of `module.children()`, which also builds names.
    """
    private: dict[str, nn.Module | None] | None = getattr(module, "_modules", None)
    return module.children() if private is None else private.values()


# --------------------------------------------- accelerators that have not been initialised


class Waiting(NamedTuple):
    """The calls that torch will make on an accelerator's generators when it is initialised.

    torch queues `manual_seed` and `set_rng_state` until initialisation. A tracker holds the
    seeds, as (callback, stack) pairs, and they run after all other queued calls.
    `_lazy_seed_tracker` and `_queued_calls` belong to torch.cuda, xpu and mtia; no public
    call shows a queued seed.
    """

    seed_all: Any
    seed_one: Any
    order: list[Any]  # torch replaces this list at each change
    queue: list[Any]


def is_compiled(module: Any) -> bool:
    """Return whether this build of torch has the device; XPU and MTIA tell nowhere else."""
    return bool(module._is_compiled())


def has_queue(module: Any) -> bool:
    return hasattr(module, "_queued_calls")


def queued_calls(module: Any) -> list[Any]:
    calls: list[Any] = module._queued_calls
    return calls


def read_waiting(module: Any) -> Waiting | None:
    """Return the calls queued for the device module, or None if it has no tracker."""
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
    """Replace all calls queued for the device module by `waiting`."""
    tracker = module._lazy_seed_tracker
    tracker.manual_seed_all_cb = waiting.seed_all
    tracker.manual_seed_cb = waiting.seed_one
    tracker.call_order = waiting.order
    module._queued_calls[:] = waiting.queue


# ------------------------------------------------------------------------------ operators

_exclude: Any = getattr(torch._C, "_ExcludeDispatchKeyGuard", None)
_AUTOCAST = [
    key for name, key in torch.DispatchKey.__members__.items() if name.startswith("Autocast")
]
_autocast_keys: Any = functools.reduce(operator.or_, map(torch._C.DispatchKeySet, _AUTOCAST))


def without_autocast(device: str) -> Any:
    """Return a context in which autocast converts nothing, for the kernel of an operator.

    Takes 0.7 us; the public way takes 12 to 29.
    """
    if _exclude is None:
        return torch.autocast(device, enabled=False)
    return _exclude(_autocast_keys)


def _backward_node() -> int | None:
    """Return the sequence number of the node of autograd that runs in this thread, or None."""
    node = torch._C._current_autograd_node()
    return None if node is None else node._sequence_nr()


#: The number that torch gives to a forward operation, and that its node has in the backward. It
#: tells which line a backward belongs to. Where it is missing, no forward is named.
backward_node: Callable[[], int | None] = (
    _backward_node if hasattr(torch._C, "_current_autograd_node") else lambda: None
)
next_sequence_number: Callable[[], int] = getattr(torch.autograd, "_get_sequence_nr", lambda: 0)


def compiled_graph() -> Any:
    """Return the class whose objects run what inductor has compiled; None before torch compiled.

    A dispatch mode does not see what runs inside. `wrap_inductor_compiled_regions` shows only
    regions that are compiled after it was set.
    """
    if "torch._dynamo" not in sys.modules:
        return None
    try:
        module = importlib.import_module("torch._inductor.output_code")
    except ImportError:  # before torch 2.6
        return None
    return module.CompiledFxGraph


def compiled_graphs() -> int:
    """Return how many graphs torch.compile has made in this process; 0 where it does not tell."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    counters = getattr(dynamo, "counters", {})
    return int(counters.get("stats", {}).get("unique_graphs", 0))
