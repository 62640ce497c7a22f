"""The proof: a replacement's first result on a device, beside others of its own and torch's."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .agreement import same_bits, tensors
from .counts import REFUSED, UNPROVED
from .gate import GATE
from .registry import Replacement, overload_of, written

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


def refuse_capture(operation: str) -> None:
    """Refuse to prove a replacement where nothing can be read.

    Raises:
        RuntimeError: a CUDA graph is being captured.
    """
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():  # type: ignore[no-untyped-call]
        raise RuntimeError(
            f"{operation} is replaced for the first time while a CUDA graph is captured, where its "
            "replacement cannot prove itself: run the step once before the capture, in a block "
            "with deterministic=True"
        )


def prove(replacement: Replacement, args: Args, kwargs: Kwargs, result: Any) -> Verdict:
    """Return whether `result` may be used, which the replacement has just given.

    Waits for the device.
    """
    if not any(one.numel() for one in tensors(result)):
        return Verdict("", is_final=False)
    try:
        if not _is_telling(replacement, args):
            return Verdict(UNPROVED, is_final=False)
        why = _objection(replacement, args, kwargs, result)
    except torch.OutOfMemoryError:
        return Verdict(UNPROVED, is_final=True)
    return Verdict(REFUSED if why else "", True, why)


def _is_telling(replacement: Replacement, args: Args) -> bool:
    """Return whether the values that the result is made of are finite, and not zero everywhere.

    Of other values a wrong formula may make a right result.
    """
    carriers = [one for one in args if isinstance(one, Tensor) and one.dtype != torch.bool]
    if replacement.carrier is not None:
        carriers = [args[replacement.carrier]]
    return any(bool(torch.isfinite(one).all() & (one != 0).any()) for one in carriers)


def _objection(replacement: Replacement, args: Args, kwargs: Kwargs, result: Any) -> str:
    """Return why the result may not be used, or nothing.

    The replacement runs twice more, and torch's own kernel once. Each result is compared and
    dropped before the next. For 16-bit inputs torch's kernel runs in float32: some of its kernels
    add in 16 bits, and are no measure then.
    """
    for _ in range(2):
        again = tensors(replacement.function(*args, **kwargs))
        if not all(map(same_bits, tensors(result), again)):
            return "it gave other bits when it ran again"
        del again
    ours = [_widened(value) for value in args]
    for place in written(replacement.operation):
        ours[place] = ours[place].clone()
    try:
        call = functools.partial(overload_of(replacement.operation), *ours, **kwargs)
        native = GATE.native(call, replacement.alert)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return f"torch's own kernel, beside which it has to prove itself, raised {error!r:.200}"
    if not replacement.agrees(result, native, *args, **kwargs):
        return "its result differs from that of torch's own kernel by more than rounding explains"
    return ""


def _widened(value: Any) -> Any:
    is_narrow = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if is_narrow else value
