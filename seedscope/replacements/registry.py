"""Which operations have a replacement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .agreement import Agrees


class Replacement(NamedTuple):
    """A deterministic formula for an operation.

    Attributes:
        operation: the name of the operation, and of its overload if it has one, such as
            `"aten::put_"`.
        function: returns what the operation returns, and changes no argument. For an operation
            that works in place it returns the new values.
        agrees: `agrees(result, native, *args, **kwargs)` returns whether torch's own kernel, which
            has returned `native`, could return `result`.
        alert: the name that torch's error has for the operation, without the device; empty if it
            is not known.
        outs: the overloads that write to `out=`, such as `"grad_input"`, with a kernel of their
            own.
        devices: the types of the devices whose kernels torch does not repeat.
        version: changes whenever a result changes. The run log keeps it.
        carriers: the places of the arguments whose values the results are made of; empty if they
            are not known.
        is_silent: whether torch's kernel does not repeat and does not raise: it is never tried.
        is_known: whether it is known that torch's kernel raises before it writes anything, and
            that no size decides whether it raises.
    """

    operation: str
    function: Callable[..., Any]
    agrees: Agrees
    alert: str = ""
    outs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cuda",)
    version: int = 1
    carriers: tuple[int, ...] = (0,)
    is_silent: bool = False
    is_known: bool = True


_added: dict[tuple[str, str], Replacement] = {}


def replacements() -> dict[tuple[str, str], Replacement]:
    """Return each replacement by operation and device type."""
    from .built_in import BUILT_IN  # on use: most processes need no formula

    built_in = {(one.operation, device): one for one in BUILT_IN for device in one.devices}
    return {**built_in, **_added}


def add(replacement: Replacement) -> None:
    """Add a replacement, in the place of one that was added before or is built in."""
    for device in replacement.devices:
        _added[replacement.operation, device] = replacement


def overload_of(operation: str) -> Any:
    """Return the operation, to be called.

    Raises:
        ValueError: torch has no such operation.
    """
    space, _, name = operation.partition("::")
    name, _, overload = name.partition(".")
    try:
        return getattr(getattr(getattr(torch.ops, space), name), overload or "default")
    except (AttributeError, RuntimeError):
        raise ValueError(
            f"torch has no operation {operation!r}: import the library that defines it, and name "
            'the overload if there is one, as in "aten::scatter_reduce.two"'
        ) from None


def exists(operation: str) -> bool:
    """Return whether this version of torch has the operation."""
    try:
        overload_of(operation)
    except ValueError:
        return False
    return True


def written(operation: str) -> list[int]:
    """Return the places of the arguments that the operation writes to."""
    arguments = overload_of(operation)._schema.arguments
    return [
        place for place, one in enumerate(arguments) if one.alias_info and one.alias_info.is_write
    ]


def outs(operation: str) -> list[str]:
    """Return the names of the operation's `out=` arguments."""
    return [one.name for one in overload_of(operation)._schema.arguments if one.is_out]


def dispatch_key(device: str) -> str:
    """Return the key of a device type in torch's dispatcher, such as `"CUDA"`.

    Raises:
        ValueError: torch knows no such type.
    """
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError):
        kind = ""
    if kind != device:
        raise ValueError(f'device must be a type of device such as "cuda", got {device!r}')
    return kind.upper() if kind.upper() in torch.DispatchKey.__members__ else "PrivateUse1"
