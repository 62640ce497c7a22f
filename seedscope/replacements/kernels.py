"""The kernels at a device's dispatch key: they call torch's own, or the replacement.

They are registered once, when a strict scope is first opened, and stay. To register and remove
them for each scope would take 0.8 ms, and would race with threads that call the operations. So a
gate decides at each call.

See: https://docs.pytorch.org/docs/stable/library.html
"""

from __future__ import annotations

import functools
import warnings
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..support.compiler import opaque
from ..support.torch_internals import without_autocast
from . import counts
from .agreement import tensors
from .counts import REFUSED, What
from .gate import GATE, is_alert
from .proof import Verdict, is_capturing, prove, refuse_capture, run_native
from .registry import Replacement, dispatch_key, exists, outs, replacements, written

#: Before torch 2.9 no call reaches the kernel in whose place another is registered.
IS_SUPPORTED = hasattr(torch.library, "get_kernel")


class Kernel:
    """The kernel of an operation, or of its overload with `out=`, on a type of device."""

    def __init__(self, name: str, device: str, replacement: Replacement) -> None:
        self._native = torch.library.get_kernel(name, dispatch_key(device)).call_boxed
        self._device = device
        self._outs = outs(name)
        self._written = [] if self._outs else written(name)
        self.use(replacement)

    def use(self, replacement: Replacement) -> None:
        """Take a formula, which has yet to prove itself."""
        self.replacement = replacement
        self._verdicts: dict[Any, Verdict] = {}  # of the cases in which torch's kernel raises
        self._numbers = int if replacement.is_known else bool  # in others a number may be a size
        # One that may write to its arguments before it raises is not tried.
        self._is_tried = not replacement.is_silent and (replacement.is_known or not self._written)

    def register(self, name: str, device: str) -> torch.library.Library:
        """Register the kernel, until the returned library is dropped."""
        native, replaces, run = self._native, GATE.replaces, self._run

        @opaque
        def kernel(keyset: Any, *args: Any, **kwargs: Any) -> Any:
            if replaces():
                return run(keyset, args, kwargs)
            return native(keyset, *args, **kwargs)

        library = torch.library.Library(name.partition("::")[0], "IMPL")  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():  # torch warns of the first kernel that is overridden
            warnings.simplefilter("ignore")
            library.impl(  # type: ignore[no-untyped-call]
                name, kernel, dispatch_key(device), with_keyset=True, allow_override=True
            )
        return library

    def _run(self, keyset: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the native kernel's result; the replacement's where the native one raises."""
        case = tuple(_kind(each, self._numbers) for each in (*args, *kwargs.items()))
        verdict = self._verdicts.get(case)
        alert = None
        if self._is_tried and (verdict is None or not self.replacement.is_known):
            try:
                with GATE.lock:  # a thread that holds it has switched torch to warnings
                    return self._native(keyset, *args, **kwargs)
            except RuntimeError as error:
                if not is_alert(error):
                    raise
                alert = error.with_traceback(None)
        pure = {name: value for name, value in kwargs.items() if name not in self._outs}
        if verdict is None:
            refuse_capture(self.replacement.operation)
        if verdict is None or verdict.state != REFUSED:
            with without_autocast(self._device):
                result = self._replaced(args, pure)
                if verdict is None:
                    verdict = prove(self.replacement, args, pure, result)
                    if verdict.is_final:
                        self._verdicts[case] = verdict
        counts.add(What(self.replacement.operation, self.replacement.version, verdict.state))
        if verdict.state == REFUSED:
            self._refuse(alert, verdict.why, keyset, args, kwargs)
        into = [kwargs[name] for name in self._outs] + [args[place] for place in self._written]
        return _write(tensors(result), into) if into else result

    def _replaced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the formula's result.

        Raises:
            Exception: what torch's own kernel raises for these arguments, else what the formula
                has raised.
        """
        try:
            return self.replacement.function(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if is_capturing():
                raise
            run_native(self.replacement, args, kwargs)  # it knows better what is wrong with them
            error.add_note(
                f"seedscope: raised in the replacement of {self.replacement.operation}, where "
                f"torch's own kernel raises nothing. {self._advice()}"
            )
            raise

    def _advice(self) -> str:
        if self.replacement.is_known:
            return "Please report this to seedscope, with the versions that `seedscope info` shows."
        return f"The function was given to register_replacement: {self.replacement.function!r}."

    def _refuse(
        self, alert: RuntimeError | None, why: str, keyset: Any, args: Any, kwargs: Any
    ) -> NoReturn:
        """Raise torch's error, with the reason why the replacement does not run."""
        try:
            if alert is None and not self.replacement.is_silent:
                with GATE.lock:
                    self._native(keyset, *args, **kwargs)
            raise alert or RuntimeError(
                f"{self.replacement.operation} does not have a deterministic implementation"
            )
        except RuntimeError as error:
            error.add_note(
                f"seedscope: the replacement of {self.replacement.operation} was refused here: "
                f"{why}. {self._advice()}"
            )
            raise


def _kind(value: Any, numbers: Any) -> Any:
    """Return what of an argument may decide which kernel runs, or which branch of a formula.

    That is a type, a memory format, a flag, a name, whether an argument is given, and a number if
    its type is in `numbers`. Lists of sizes and scales decide nothing.
    """
    if isinstance(value, Tensor):
        layout: Any = value.is_contiguous()
        if not layout and value.dim() in (4, 5):
            last = torch.channels_last if value.dim() == 4 else torch.channels_last_3d
            layout = value.is_contiguous(memory_format=last), value.dim()
        return value.dtype, value.device, layout
    if isinstance(value, tuple):  # of kwargs
        return value[0], _kind(value[1], numbers)
    if value is None or isinstance(value, (bool, str, numbers)):
        return type(value), value
    if isinstance(value, list) and all(type(one) is bool for one in value):
        return tuple(value)
    return type(value)


def _write(values: list[Tensor], into: list[Tensor]) -> Any:
    """Write the values where the operation writes its result, and return that."""
    for value, target in zip(values, into, strict=True):
        torch.ops.aten.clone.out(value, out=target)  # resizes as other operations do
    return into[0] if len(into) == 1 else tuple(into)


_kernels: dict[tuple[str, str], Kernel] = {}
_libraries: dict[tuple[str, str], torch.library.Library] = {}
_is_current = False


def install() -> None:
    """Register a kernel for each replacement whose device this build of torch has.

    Starts no device. An interrupted call can be repeated: each native kernel is kept before
    another takes its place.
    """
    global _is_current
    if _is_current or not IS_SUPPORTED:
        return
    for (operation, device), replacement in replacements().items():
        if not is_built(device):
            continue
        for name in (operation, *(f"{operation}.{out}" for out in replacement.outs)):
            if not has_kernel(name, device):
                continue  # such as one that torch has for another device alone
            kernel = _kernels.get((name, device)) or Kernel(name, device, replacement)
            kernel = _kernels.setdefault((name, device), kernel)
            if kernel.replacement is not replacement:
                kernel.use(replacement)
            if (name, device) not in _libraries:
                _libraries[name, device] = kernel.register(name, device)
    _is_current = True


@functools.cache
def is_built(device: str) -> bool:
    """Return whether this build of torch has kernels for the device, started or not."""
    try:
        torch.library.get_kernel("aten::empty_strided", dispatch_key(device))
    except RuntimeError:
        return False
    return True


def has_kernel(name: str, device: str) -> bool:
    """Return whether this version of torch has the operation, with a kernel for the device."""
    try:
        torch.library.get_kernel(name, dispatch_key(device))
    except RuntimeError:
        return False
    return exists(name)


def renew() -> None:
    """Let the next `install` look for replacements again."""
    global _is_current
    _is_current = False


def available() -> dict[str, list[str]]:
    """Return the operations with a replacement here, by the device types that this build has."""
    found: dict[str, list[str]] = {}
    for operation, device in replacements() if IS_SUPPORTED else ():
        if is_built(device) and has_kernel(operation, device):
            found.setdefault(device, []).append(operation)
    return found


def remove() -> None:
    """Take every replacement out of torch, whose own kernels then stand alone again.

    The next scope with replacements registers them anew. Call this while no other thread calls
    an operation that has a replacement.

    Raises:
        RuntimeError: a scope with replacements is open.
    """
    if GATE.is_open:
        raise RuntimeError("a block with replacements is open: leave it before remove()")
    renew()
    _libraries.clear()
    _kernels.clear()
