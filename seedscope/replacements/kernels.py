"""The kernels before torch's own: they call those, or the replacement.

They are registered once, when a strict scope is first opened, and stay. To register and remove
them for each scope would take 0.8 ms, and would race with threads that call the operations. So a
gate decides at each call.

They are registered at the last key that torch's dispatcher asks before the device's own, and go
on from there. One in the place of torch's kernel could call that through
`torch.library.get_kernel` alone, which holds Python's lock while the kernel runs.

See: https://docs.pytorch.org/docs/stable/library.html
"""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..support.compiler import opaque
from ..support.torch_internals import without_autocast
from . import counts
from .agreement import tensors
from .counts import REFUSED, What
from .gate import GATE, is_alert
from .layout import refuse_overlap
from .proof import Verdict, prove, refuse_capture
from .registry import Replacement, dispatch_key, exists, outs, overload_of, replacements, written
from .running import advice, run_replacement, unwritten

_KEY = "BackendSelect"
_SELECT = torch._C.DispatchKeySet(torch.DispatchKey.BackendSelect)
_PYTHON = torch._C.DispatchKeySet(torch.DispatchKey.PythonDispatcher)

#: Before torch 2.9 nothing tells which operations have a kernel for a device.
IS_SUPPORTED = hasattr(torch.library, "get_kernel")

_MOST = 1000  # verdicts of a formula: what decides may be a size, which differs in each batch


class Kernel:
    """The kernel of an operation, or of its overload with `out=`, on a type of device."""

    def __init__(self, name: str, device: str, replacement: Replacement) -> None:
        self._native = overload_of(name).redispatch
        self._device = device
        self._outs = outs(name)
        self._written = [] if self._outs else written(name)
        self.use(replacement)

    def use(self, replacement: Replacement) -> None:
        """Take a formula, which has yet to prove itself."""
        # With the verdicts of the cases in which torch's kernel raises. Both are taken at once: a
        # proof in another thread may end after a new formula has come.
        self._formula: tuple[Replacement, dict[Any, Verdict]] = replacement, {}

    @property
    def replacement(self) -> Replacement:
        return self._formula[0]

    @property
    def may_have_written(self) -> bool:
        """Whether torch's own kernel may have written to its arguments before it raised."""
        return bool(self._written) and not self.replacement.is_known

    def run(self, keyset: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the native kernel's result; the replacement's where the native one raises."""
        with torch._C.DisableTorchFunction():  # kernels of torch do not ask a tensor's subclass
            return self._run(keyset, args, kwargs)

    def _run(self, keyset: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        one, verdicts = self._formula
        case = tuple(_kind(each, one.is_known) for each in (*args, *kwargs.items()))
        verdict = verdicts.get(case)
        alert = None
        is_tried = not one.is_silent and (one.is_known or not self._written)
        if is_tried and (verdict is None or not one.is_known):
            result, alert = self._try(keyset, args, kwargs)
            if alert is None:
                return result
        pure = {name: value for name, value in kwargs.items() if name not in self._outs}
        into = [kwargs[name] for name in self._outs] + [args[place] for place in self._written]
        for target in into:
            refuse_overlap(target)
        with without_autocast(self._device):
            if verdict is None:
                refuse_capture(one.operation)
                result, verdict = prove(one, args, pure)
                _remember(verdicts, case, verdict)
            elif verdict.state != REFUSED:
                result = run_replacement(one, args, pure)
        counts.add(What(one.operation, one.version, verdict.state))
        if verdict.state == REFUSED:
            if alert is None and not one.is_silent:
                _, alert = self._try(keyset, unwritten(one.operation, args), kwargs)
            _refuse(one, alert, verdict.why)
        return _write(tensors(result), into) if into else result

    def _try(self, keyset: Any, args: Any, kwargs: Any) -> tuple[Any, RuntimeError | None]:
        """Return the result of torch's own kernel, or the error for want of one that repeats.

        Raises:
            Exception: what torch raises for another reason.
        """
        try:
            with GATE.lock:  # a thread that holds it has switched torch to warnings
                return self._native(keyset, *args, **kwargs), None
        except RuntimeError as error:
            if not is_alert(error):
                raise
            return None, error.with_traceback(None)


def _remember(verdicts: dict[Any, Verdict], case: Any, verdict: Verdict) -> None:
    if verdict.is_final:
        if len(verdicts) >= _MOST:
            verdicts.clear()
        verdicts[case] = verdict


def _refuse(one: Replacement, alert: RuntimeError | None, why: str) -> NoReturn:
    """Raise torch's error, with the reason why the replacement does not run."""
    why_not = "does not have a deterministic implementation" if one.is_silent else "is refused"
    error = alert or RuntimeError(f"{one.operation} {why_not}")
    error.add_note(
        f"seedscope: the replacement of {one.operation} was refused here: {why}. {advice(one)}"
    )
    raise error


def _kind(value: Any, is_known: bool) -> Any:
    """Return what of an argument may decide which kernel runs, or which branch of a formula.

    That is a type, a memory format, a flag, a name, a number, and whether an argument is given.
    Scales and lists of sizes decide nothing in seedscope's own formulas.
    """
    if isinstance(value, Tensor):
        layout: Any = value.is_contiguous()
        if not layout and value.dim() in (4, 5):
            last = torch.channels_last if value.dim() == 4 else torch.channels_last_3d
            layout = value.is_contiguous(memory_format=last), value.dim()
        return value.dtype, value.device, layout
    if isinstance(value, tuple):  # of kwargs
        return value[0], _kind(value[1], is_known)
    if isinstance(value, list):
        is_told = not is_known or all(type(one) is bool for one in value)
        return tuple(_kind(one, is_known) for one in value) if is_told else list
    if not is_known and value != value:
        value = "nan"  # equals no other, and each call would be a case of its own
    is_told = value is None or isinstance(value, (bool, str, int))
    return (type(value), value) if is_told or not is_known else type(value)


def _write(values: list[Tensor], into: list[Tensor]) -> Any:
    """Write the values where the operation writes its result, and return that."""
    for value, target in zip(values, into, strict=True):
        torch.ops.aten.clone.out(value, out=target)  # resizes as other operations do
    return into[0] if len(into) == 1 else tuple(into)


#: By operation, and by the key of the device that the dispatcher would ask next.
_kernels: dict[str, dict[Any, Kernel]] = {}
_libraries: dict[str, torch.library.Library] = {}
#: A token of the replacements that are wanted, and of those that are installed.
_wanted, _installed = object(), object()


def install() -> None:
    """Register a kernel for each replacement whose device this build of torch has.

    Starts no device. An interrupted call can be repeated.
    """
    global _installed
    if _installed is (wanted := _wanted) or not IS_SUPPORTED:
        return
    for (operation, device), replacement in replacements().items():
        if not is_built(device):
            continue
        for name in (operation, *(f"{operation}.{out}" for out in replacement.outs)):
            if not has_kernel(name, device):
                continue  # such as one that torch has for another device alone
            key = torch.DispatchKey.__members__[dispatch_key(device)]
            kernel = Kernel(name, device, replacement)
            kernel = _kernels.setdefault(name, {}).setdefault(key, kernel)
            if kernel.replacement is not replacement:
                kernel.use(replacement)
            if name not in _libraries:
                _libraries[name] = _register(name, _kernels[name])
    _installed = wanted  # another thread may want more by now


def _register(name: str, kernels: dict[Any, Kernel]) -> torch.library.Library:
    """Register a kernel that asks those of the devices, until the returned library is dropped."""
    replaces, native = GATE.replaces, overload_of(name).redispatch

    def found(keyset: Any) -> Kernel | None:
        return kernels.get((keyset - _PYTHON).highestPriorityTypeId())

    @opaque
    def kernel(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        rest = keyset - _SELECT
        if replaces() and (one := found(rest)):
            return one.run(rest, args, kwargs)
        try:
            return native(rest, *args, **kwargs)
        except RuntimeError as error:
            one = found(rest) if is_alert(error) else None
            if one is None or one.may_have_written or GATE.alert_stands():
                raise
        # Another thread has opened or closed a block since the look at the gate.
        return one.run(rest, args, kwargs) if replaces() else native(rest, *args, **kwargs)

    library = torch.library.Library(name.partition("::")[0], "IMPL")  # type: ignore[no-untyped-call]
    # One that an interrupt has left may still be there, and calls the same.
    library.impl(name, kernel, _KEY, with_keyset=True, allow_override=True)  # type: ignore[no-untyped-call]
    return library


@functools.cache
def is_built(device: str) -> bool:
    """Return whether this build of torch has kernels for the device, started or not."""
    try:
        torch.library.get_kernel("aten::empty_strided", dispatch_key(device))
    except RuntimeError:
        return False
    return True


def has_kernel(name: str, device: str) -> bool:
    """Return whether this version of torch calls a kernel of the operation on the device.

    It does not if it has none, or takes the operation apart into others before.
    """
    if not exists(name):
        return False
    try:
        torch.library.get_kernel(name, dispatch_key(device))
    except RuntimeError:
        return False
    key, keys = torch.DispatchKey.__members__[dispatch_key(device)], torch.DispatchKey
    has_own = overload_of(name).has_kernel_for_dispatch_key
    return has_own(key) or not has_own(keys.CompositeImplicitAutograd)


def has_select(name: str) -> bool:
    """Return whether torch has a kernel of its own at the key where those of seedscope are."""
    if name in _libraries:
        return False
    has_own = overload_of(name).has_kernel_for_dispatch_key
    try:
        return bool(has_own(torch.DispatchKey.BackendSelect))
    except RuntimeError:  # Python has the overload, and the dispatcher has not
        return False


def renew() -> None:
    """Let the next `install` look for replacements again."""
    global _wanted
    _wanted = object()


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
