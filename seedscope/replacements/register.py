"""`register_replacement`: a deterministic form of one more operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .agreement import Agrees, similar
from .gate import GATE
from .kernels import IS_SUPPORTED, has_kernel, install, is_built, renew
from .registry import Replacement, add, dispatch_key, overload_of

F = TypeVar("F", bound=Callable[..., Any])


def register_replacement(
    operation: str, *, device: str = "cuda", version: int = 1, agrees: Agrees = similar
) -> Callable[[F], F]:
    """Return a decorator that makes a function the deterministic form of an operation.

    In a block with `deterministic=True` the function runs wherever torch's own kernel raises for
    want of a deterministic implementation. At its first use for a dtype, a device and other
    options it has to prove itself: it runs three times, and once beside torch's kernel. An
    operation that works in place may have written before it raises, so that its function runs
    without that try.

    The function gets the operation's arguments. It returns what the operation returns, and
    changes no argument; for an operation that works in place it returns the new values.

    Args:
        operation: the name in `torch.ops`, and the overload if there is one, such as
            `"torchvision::_roi_align_backward"` or `"aten::scatter_reduce.two"`.
        device: the type of the devices, such as `"cuda"`, `"cpu"` or `"xpu"`.
        version: an integer to change whenever the function's results change. The run log keeps it.
        agrees: a function; `agrees(result, native, *args, **kwargs)` returns whether torch's own
            kernel, which has returned `native`, could return `result`. By default no value may
            differ by more than 2,000 times the rounding error of the largest value. If an argument
            has 16 bits, `native` was computed in float32.

    Raises:
        ValueError: torch has no such operation, knows no such type of device, or calls no kernel
            of its own for the operation on such a device.
        TypeError: the operation is no string, the version no integer, or the function or `agrees`
            cannot be called.
    """
    if not isinstance(operation, str):
        raise TypeError(f'operation must be a name such as "aten::bincount", got {operation!r}')
    if type(version) is not int:
        raise TypeError(f"version must be an integer, got {version!r}")
    if not callable(agrees):
        raise TypeError(f"agrees must be a function, got {agrees!r}")
    operation = operation.removesuffix(".default")  # as torch prints the overload without a name
    overload_of(operation)
    dispatch_key(device)
    if IS_SUPPORTED and is_built(device) and not has_kernel(operation, device):
        raise ValueError(
            f"torch calls no kernel of {operation} on {device}, in whose place a function could "
            "run: name the operation, and the overload, that torch's profiler shows inside of it"
        )

    def register(function: F) -> F:
        if not callable(function):
            raise TypeError(f"the replacement of {operation} must be a function, got {function!r}")
        one = Replacement(
            operation, function, agrees, "", (), (device,), version, carriers=(), is_known=False
        )
        add(one)
        renew()
        if GATE.is_open:
            install()
        return function

    return register
