"""`register_replacement`: a deterministic form of one more operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .agreement import Agrees, similar
from .gate import GATE
from .kernels import IS_SUPPORTED, has_kernel, has_select, install, is_built, renew
from .registry import Replacement, add, dispatch_key, outs, overload_of, replacements

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
            of its own for the operation on such a device; or the operation returns something else
            than new tensors or those that it writes to.
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
    _check_form(operation)
    dispatch_key(device)
    if IS_SUPPORTED and is_built(device) and not has_kernel(operation, device):
        raise ValueError(
            f"torch calls no kernel of {operation} on {device}, in whose place a function could "
            "run: name the operation, and the overload, that torch's profiler shows inside of it"
        )

    def register(function: F) -> F:
        if not callable(function):
            raise TypeError(f"the replacement of {operation} must be a function, got {function!r}")
        # The forms that write to `out=` call the function too.
        forms = [one.outs for one in replacements().values() if one.operation == operation]
        one = Replacement(
            operation,
            function,
            agrees,
            outs=forms[0] if forms else (),
            devices=(device,),
            version=version,
            carriers=(),
            is_known=False,
        )
        add(one)
        renew()
        if GATE.is_open:
            install()
        return function

    return register


def _check_form(operation: str) -> None:
    """Refuse an operation whose results no function can give.

    Raises:
        ValueError: there is no such operation, or it has such results.
    """
    schema = overload_of(operation)._schema
    returned = [str(one.type) for one in schema.returns]
    if outs(operation):
        why = "it writes to `out=`: name the operation that returns its result"
    elif has_select(operation):
        why = "torch asks a kernel of its own for the device, which would be lost"
    elif not returned or ({*returned} != {"Tensor"} and returned != ["List[Tensor]"]):
        why = f"it must return tensors alone, and returns ({', '.join(returned)})"
    elif not _returns_what_it_writes(schema):
        why = "it returns a view, or writes to something else than the tensors that it returns"
    else:
        return
    raise ValueError(f"{operation} cannot have a replacement: {why}")


def _returns_what_it_writes(schema: Any) -> bool:
    """Return whether all results are new, or are the arguments that are written, in order."""
    given = [one for one in schema.arguments if one.alias_info]
    back = [one for one in schema.returns if one.alias_info]
    if not given and not back:
        return True
    return (
        len(back) == len(schema.returns)
        and [one.alias_info.before_set for one in given] == [x.alias_info.before_set for x in back]
        and all(one.alias_info.is_write and str(one.type) == "Tensor" for one in given)
    )
