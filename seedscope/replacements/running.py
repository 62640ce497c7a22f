"""One run of a replacement, or of torch's own kernel in its place, and notes of its errors."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .agreement import similar, tensors
from .gate import GATE
from .registry import Replacement, overload_of, written

Args = Sequence[Any]
Kwargs = Mapping[str, Any]


def is_capturing() -> bool:
    """Return whether a CUDA graph is being captured, in which nothing can be read."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]


def is_memory_short(error: BaseException) -> bool:
    """Return whether torch says that an allocation has failed, on a GPU or on the CPU."""
    is_told = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_told or "DefaultCPUAllocator" in str(error)


def run_replacement(one: Replacement, args: Args, kwargs: Kwargs) -> Any:
    """Return the result of the replacement's function.

    Raises:
        Exception: what torch's own kernel raises for these arguments, else what the function has
            raised.
    """
    try:
        result = one.function(*args, **kwargs)
        return result if one.is_known else _apart(result, args, kwargs)
    except RecursionError as error:
        _note(
            error,
            f"raised in the replacement of {one.operation}, which must not call {one.operation}. "
            f"{advice(one)}",
        )
        raise
    except Exception as error:
        if is_capturing() or is_memory_short(error):
            raise
        run_native(one, args, kwargs)  # it knows better what is wrong with them
        _note(
            error,
            f"raised in the replacement of {one.operation}, where torch's own kernel raises "
            f"nothing. {advice(one)}",
        )
        raise


def _apart(result: Any, args: Args, kwargs: Kwargs) -> Any:
    """Return the result in memory of its own, also where a function has returned an argument."""
    given = {_memory(one) for one in tensors((args, kwargs))}
    return tree_map_only(Tensor, lambda one: one.clone() if _memory(one) in given else one, result)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0


def run_native(one: Replacement, args: Args, kwargs: Kwargs) -> Any:
    """Return the result of torch's own kernel, which writes to a copy if it works in place.

    Raises:
        Exception: what torch raises.
    """
    copies = unwritten(one.operation, args)
    call = functools.partial(overload_of(one.operation), *copies, **kwargs)
    return GATE.native(call, one.alert)


def unwritten(operation: str, args: Args) -> list[Any]:
    """Return the arguments, with copies of those that the operation writes to."""
    places = written(operation)
    return [value.clone() if place in places else value for place, value in enumerate(args)]


def agrees(one: Replacement, result: Any, native: Any, args: Args, kwargs: Kwargs) -> bool:
    """Return whether torch's own kernel, which has returned `native`, could return `result`."""
    try:
        return one.agrees(result, native, *args, **kwargs)
    except Exception as error:
        if one.agrees is not similar and not is_memory_short(error):
            _note(error, f"raised in the `agrees` of the replacement of {one.operation}.")
        raise


def advice(one: Replacement) -> str:
    if one.is_known:
        return "Please report this to seedscope, with the versions that `seedscope info` shows."
    text = f"Correct the function that was given to register_replacement: {one.function!r}."
    if one.agrees is similar:
        return text
    return f"{text} Its `agrees` decides how much results may differ."


def _note(error: BaseException, text: str) -> None:
    note = f"seedscope: {text}"
    if note not in getattr(error, "__notes__", []):  # a function that calls itself raises it often
        error.add_note(note)
