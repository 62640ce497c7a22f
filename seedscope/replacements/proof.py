"""The proof: a replacement's first result on a device, beside others of its own and torch's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .agreement import same_bits, tensors
from .counts import REFUSED, UNPROVED
from .gate import GATE
from .registry import Replacement, overload_of, written

_NARROW = (torch.float16, torch.bfloat16)

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class Verdict(NamedTuple):
    """What a proof has found.

    Attributes:
        state: empty if the replacement is proved, else UNPROVED or REFUSED.
        is_final: whether a later call, with other values, would find the same.
        why: the reason of a refusal.
    """

    state: str
    is_final: bool
    why: str = ""


def is_capturing() -> bool:
    """Return whether a CUDA graph is being captured, in which nothing can be read."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]


def refuse_capture(operation: str) -> None:
    """Refuse to prove a replacement where nothing can be read.

    Raises:
        RuntimeError: a CUDA graph is being captured.
    """
    if is_capturing():
        raise RuntimeError(
            f"{operation} is replaced for the first time while a CUDA graph is captured, where its "
            "replacement cannot prove itself: run the step once before the capture, in a block "
            "with deterministic=True"
        )


def prove(replacement: Replacement, args: Args, kwargs: Kwargs, result: Any) -> Verdict:
    """Return whether `result` may be used, which the replacement has just given.

    Waits for the device.

    Raises:
        Exception: what torch's own kernel raises, such as for input that it refuses.
    """
    found = tensors(result)
    is_empty = bool(found) and not any(one.numel() for one in found)
    try:
        if not is_empty and not _is_telling(replacement, args):
            return Verdict(UNPROVED, is_final=False)
        why = _objection(replacement, args, kwargs, result)
        if not why and not is_empty and not any(map(_has_values, found)):
            return Verdict(UNPROVED, is_final=False)
    except (RuntimeError, MemoryError) as error:
        if not is_memory_short(error):
            raise
        return Verdict(UNPROVED, is_final=True)
    return Verdict(REFUSED if why else "", not is_empty, why)


def is_memory_short(error: BaseException) -> bool:
    """Return whether torch says that an allocation has failed, on a GPU or on the CPU."""
    is_told = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_told or "DefaultCPUAllocator" in str(error)


def _is_telling(replacement: Replacement, args: Args) -> bool:
    """Return whether the values that the results are made of are finite, and not all zero.

    Of other values a wrong formula may make a right result.
    """
    if replacement.carriers:
        return all(_has_values(args[place], finite=True) for place in replacement.carriers)
    given = (one for one in tensors(args) if one.dtype != torch.bool)
    return any(_has_values(one, finite=True) for one in given)


def _has_values(tensor: Tensor, finite: bool = False) -> bool:
    """Return whether an element is a number but zero, and, if so asked, all are finite."""
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()  # few operations take 8 bits
    is_finite = torch.isfinite(tensor)
    has_values = (is_finite & (tensor != 0)).any()
    return bool(has_values & is_finite.all() if finite else has_values)


def _objection(replacement: Replacement, args: Args, kwargs: Kwargs, result: Any) -> str:
    """Return why the result may not be used, or nothing.

    torch's own kernel runs once, and the replacement twice more. Each result is compared and
    dropped before the next.
    """
    why = _difference(replacement, args, kwargs, result)
    for _ in range(0 if why else 2):
        again = tensors(replacement.function(*args, **kwargs))
        if not all(map(same_bits, tensors(result), again)):
            return "it gave other bits when it ran again"
        del again
    return why


def _difference(replacement: Replacement, args: Args, kwargs: Kwargs, result: Any) -> str:
    """Return how the result differs from that of torch's own kernel, or nothing.

    For 16-bit inputs torch's kernel runs in float32: some of its kernels add in 16 bits, and are
    no measure then.
    """
    native = run_native(replacement, [_widened(value) for value in args], kwargs)
    narrow = {one.dtype for one in tensors(args) if one.dtype in _NARROW}
    both: tuple[Any, ...] = result, native
    if replacement.is_known and isinstance(result, tuple):  # one may not have what was not wanted
        has_both = [a is not None and b is not None for a, b in zip(*both, strict=True)]
        both = tuple([*compress(each, has_both)] for each in both)
    ours, theirs = (_kinds(each, narrow) for each in both)
    if ours != theirs:
        return f"it returned {ours}, and torch's own kernel {theirs}"
    has_elements = any(one.numel() for one in tensors(result))
    if not has_elements or replacement.agrees(result, native, *args, **kwargs):
        return ""
    pairs = zip(*map(tensors, both), strict=True)
    # Times one: booleans have no difference.
    largest = max(float((a * 1.0 - b * 1.0).abs().max()) for a, b in pairs if a.numel())
    return (
        "its result differs from that of torch's own kernel by more than rounding explains: by up "
        f"to {largest:.3g}, for inputs of {', '.join(_kinds(one, set()) for one in tensors(args))}"
    )


def run_native(replacement: Replacement, args: Sequence[Any], kwargs: Kwargs) -> Any:
    """Return the result of torch's own kernel, which writes to a copy if it works in place.

    Raises:
        Exception: what torch raises.
    """
    copies = unwritten(replacement.operation, args)
    call = functools.partial(overload_of(replacement.operation), *copies, **kwargs)
    try:
        return GATE.native(call, replacement.alert)
    except Exception as error:
        error.add_note(
            f"seedscope: raised by torch's own kernel of {replacement.operation}, beside which its "
            "replacement has to prove itself."
        )
        raise


def unwritten(operation: str, args: Sequence[Any]) -> list[Any]:
    """Return the arguments, with copies of those that the operation writes to."""
    places = written(operation)
    return [one.clone() if place in places else one for place, one in enumerate(args)]


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in _NARROW else value


def _kinds(result: Any, narrow: set[torch.dtype]) -> str:
    """Return the types and shapes in a result. One in 16 bits is told as it is when widened."""
    if isinstance(result, Tensor):
        kind = torch.float32 if result.dtype in narrow else result.dtype
        return f"{str(kind).removeprefix('torch.')}{[*result.shape]}"
    if isinstance(result, (tuple, list)):
        return f"({', '.join(_kinds(one, narrow) for one in result)})"
    return "nothing" if result is None else f"a {type(result).__name__}"
