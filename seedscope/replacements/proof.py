"""The proof: a replacement's first result on a device, beside others of its own and torch's."""

from __future__ import annotations

from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .agreement import same_bits, similar, tensors
from .counts import REFUSED, UNPROVED
from .registry import Replacement, written
from .running import (
    Args,
    Kwargs,
    agrees,
    is_capturing,
    is_memory_short,
    run_native,
    run_replacement,
)

_NARROW = (torch.float16, torch.bfloat16)


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
    if is_capturing():
        raise RuntimeError(
            f"{operation} is replaced for the first time while a CUDA graph is captured, where its "
            "replacement cannot prove itself: run the step once before the capture, in a block "
            "with deterministic=True"
        )


def prove(one: Replacement, args: Args, kwargs: Kwargs) -> tuple[Any, Verdict]:
    """Return the replacement's result, and whether it may be used.

    Waits for the device.

    Raises:
        Exception: what torch's own kernel raises, such as for input that it refuses.
    """
    given = [] if one.is_known else tensors((args, kwargs))
    copies = _copies(given)
    result = run_replacement(one, args, kwargs)
    if copies is None:
        return result, Verdict(UNPROVED, is_final=True)
    try:
        if why := _changed(given, copies):
            return result, Verdict(REFUSED, True, why)
        return result, _verdict(one, args, kwargs, result)
    except (RuntimeError, MemoryError) as error:
        if not is_memory_short(error):
            raise
        return result, Verdict(UNPROVED, is_final=True)


def _copies(given: list[Tensor]) -> list[Tensor] | None:
    """Return copies of the tensors, or None if the memory is short."""
    try:
        return [one.clone() for one in given]
    except (RuntimeError, MemoryError) as error:
        if not is_memory_short(error):
            raise
        return None


def _changed(given: list[Tensor], copies: list[Tensor]) -> str:
    """Return what a user's function has done to its arguments, if anything, and put them back."""
    changed = [pair for pair in zip(given, copies, strict=True) if not same_bits(*pair)]
    for one, copy in changed:
        one.copy_(copy)
    return "it changed an argument" if changed else ""


def _verdict(one: Replacement, args: Args, kwargs: Kwargs, result: Any) -> Verdict:
    found = tensors(result)
    into = [args[place] for place in written(one.operation)]
    if into and _kinds(found, set()) != _kinds(into, set()):  # it may be too little to tell
        return Verdict(
            REFUSED, True, f"it returned {_kinds(found, set())} for {_kinds(into, set())}"
        )
    is_empty = bool(found) and not any(each.numel() for each in found)
    if not is_empty and not _is_telling(one, args, kwargs):
        return Verdict(UNPROVED, is_final=False)
    why = _objection(one, args, kwargs, result)
    if not why and not is_empty and not any(map(_has_values, found)):
        return Verdict(UNPROVED, is_final=False)
    return Verdict(REFUSED if why else "", not is_empty, why)


def _is_telling(replacement: Replacement, args: Args, kwargs: Kwargs) -> bool:
    """Return whether the values that the results are made of are finite, and not all zero.

    Of other values a wrong formula may make a right result.
    """
    if replacement.carriers:
        return all(_has_values(args[place], finite=True) for place in replacement.carriers)
    given = (one for one in tensors((args, kwargs)) if one.dtype != torch.bool)
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
    native = run_native(replacement, *tree_map_only(Tensor, _widened, (args, kwargs)))
    narrow = {one.dtype for one in tensors((args, kwargs)) if one.dtype in _NARROW}
    both: tuple[Any, ...] = result, native
    if replacement.is_known and isinstance(result, tuple):  # one may not have what was not wanted
        has_both = [a is not None and b is not None for a, b in zip(*both, strict=True)]
        both = tuple([*compress(each, has_both)] for each in both)
    ours, theirs = (_kinds(each, narrow) for each in both)
    if ours != theirs:
        return f"it returned {ours}, and torch's own kernel {theirs}"
    has_elements = any(one.numel() for one in tensors(result))
    if not has_elements or agrees(replacement, result, native, args, kwargs):
        return ""
    pairs = zip(*map(tensors, both), strict=True)
    # Times one: booleans have no difference.
    largest = max(float((a * 1.0 - b * 1.0).abs().max()) for a, b in pairs if a.numel())
    is_ours = replacement.is_known or replacement.agrees is similar
    judged = "more than rounding explains" if is_ours else "more than its `agrees` accepts"
    return (
        f"its result differs from that of torch's own kernel by {judged}: by up to {largest:.3g}, "
        f"for inputs of {', '.join(_kinds(one, set()) for one in tensors(args))}"
    )


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _NARROW else tensor


def _kinds(result: Any, narrow: set[torch.dtype]) -> str:
    """Return the types and shapes in a result. One in 16 bits is told as it is when widened."""
    if isinstance(result, Tensor):
        kind = torch.float32 if result.dtype in narrow else result.dtype
        return f"{str(kind).removeprefix('torch.')}{[*result.shape]}"
    if isinstance(result, (tuple, list)):
        return f"({', '.join(_kinds(one, narrow) for one in result)})"
    return "nothing" if result is None else f"a {type(result).__name__}"
