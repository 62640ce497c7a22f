"""The dispatch mode that writes a `Trace`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
)

from ..support.torch_internals import backward_node, next_sequence_number
from . import contents
from .memory import EMPTY, KNOWN, Memory, storage_id
from .operators import Operator, operator_of
from .places import Place, caller, owner
from .trace import GENERATOR, INPUT, OUTPUT, UNWRITTEN, Tables, Trace

#: Called in place of an operation that is looked at: (operator, function, args, kwargs) -> result.
Look = Callable[[Operator, Any, Any, Any], Any]


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation of this thread, and of the backwards that it starts.

    Args:
        tables: the tables of all runs.
        focus: the number of an operation of the first thread, and what is called in its place.
    """

    def __init__(self, tables: Tables, focus: tuple[int, Look] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace(tables)
        self.uncompared: set[str] = set()  # types of tensors whose content cannot be read
        self.regions = 0  # compiled ones
        #: The first operation that draws from a default generator: name, place, owner.
        self.first_draw: tuple[str, Place | None, Any] | None = None
        self._focus = focus
        self._memory = Memory()
        self._process = os.getpid()
        self._lanes: dict[int, int] = {}
        self._nodes: dict[int, int] = {}  # the forward operation of each node of autograd
        self._inside = set[int]()  # threads that are paused, such as in a compiled region
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(torch.get_num_threads())  # starts threads when it is used

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let compiled functions run compiled, and not in their eager form."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_passed_by() or _is_housekeeping(func):
            return func(*args, **kwargs)
        if any(contents.has_own_dispatch(one) for one in types):
            return NotImplemented  # the subclass calls operations on the tensors inside
        return self.record(operator_of(func), func, args, kwargs)

    def region(self, run: Any, region: Any, inputs: list[Any]) -> Any:
        """Run a compiled region as one operation, if this thread is traced."""
        is_traced = any(mode is self for mode in _get_current_dispatch_mode_stack())
        if not is_traced or self._is_passed_by():
            return run(region, inputs)

        def function(*args: Any) -> Any:
            inputs[:] = args  # the region empties the list
            with self.paused():
                return run(region, inputs)

        self.regions += 1
        written = tuple(getattr(region, "mutated_input_idxs", ()))
        return self.record(Operator("compiled region", written), function, tuple(inputs), {})

    def record(self, operator: Operator, function: Any, args: Any, kwargs: Any) -> Any:
        """Call `function`, and write down what it read and what it wrote."""
        read = []
        if not operator.is_view:
            read = [*tensors_of(operator.unread, args, kwargs, is_left_out=True)]
        before = self._inputs(operator, read, args, kwargs)
        place = caller(sys._getframe(2))
        index = len(self.trace)
        if self._focus is not None and self._focus[0] == index and not self._lane():
            result = self._focus[1](operator, function, args, kwargs)
        else:
            result = function(*args, **kwargs)
        after = self._outputs(operator, read, args, kwargs, result)
        if operator.is_random and self.first_draw is None:
            is_given, state = generator_of(read, args, kwargs)
            states = [digest for _, kind, digest in before if kind == GENERATOR]
            if state is not None and not is_given and contents.digests(state) != states:
                self.first_draw = operator.name, place, owner(sys._getframe(2))
        with self._lock:
            self._add(operator, (*before, *after), place, args, kwargs)
        return result

    def finish(self) -> Trace:
        """Return the trace, with the sums from the devices."""
        self._pool.shutdown()
        self.trace.finish()
        return self.trace

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Write down no operation of this thread."""
        here = threading.get_ident()
        was_inside = here in self._inside
        self._inside.add(here)
        try:
            yield
        finally:
            if not was_inside:
                self._inside.discard(here)

    def _is_passed_by(self) -> bool:
        """Return whether this is a forked process, or the thread is paused."""
        return threading.get_ident() in self._inside or os.getpid() != self._process

    def _lane(self) -> int:
        return self._lanes.setdefault(threading.get_ident(), len(self._lanes))

    def _add(self, operator: Operator, found: Any, place: Any, args: Any, kwargs: Any) -> None:
        trace, tables = self.trace, self.trace.tables
        for number, kind, digest in found:
            trace.add_entry(number, kind, digest.value, digest.form)
        node = backward_node()
        if node is None:
            forward = -1
            self._nodes.setdefault(next_sequence_number() - 1, len(trace))
        else:
            forward = self._nodes.get(node, -1)
        trace.add(
            tables.operations.number(operator.name),
            tables.constants.number(constants(args, kwargs)),
            tables.places.number(place),
            self._lane(),
            forward,
        )

    def _inputs(self, operator: Operator, read: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Return the digests of what the operation reads and no operation before it has written."""
        found = []
        with torch._C.DisableTorchFunction():
            for number, tensor in enumerate(read):
                state = self._memory.state(tensor)
                if state is KNOWN:
                    continue
                kind = UNWRITTEN if state is EMPTY else INPUT
                found += [(number, kind, one) for one in self._digests(tensor)]
                if state is None:
                    self._memory.write(tensor)  # as if: it has been compared
            if operator.is_random:
                given, state_of_it = generator_of(read, args, kwargs)
                if state_of_it is not None:
                    found += [(given, GENERATOR, one) for one in contents.digests(state_of_it)]
        return found

    def _outputs(
        self, operator: Operator, read: list[Tensor], args: Any, kwargs: Any, result: Any
    ) -> Any:
        """Return the digests of what the operation has written."""
        found = []
        number = 0
        with torch._C.DisableTorchFunction():
            is_late = operator.is_deferred or _is_late(operator, read, args, kwargs, result)
            for tensor in tensors_of(operator.written, args, kwargs):
                if is_late or operator.is_empty:
                    self._memory.set(tensor, EMPTY if operator.is_empty else None)
                else:
                    found += [(number, OUTPUT, one) for one in self._digests(tensor)]
                    self._memory.write(tensor)
                number += 1
            # A result in the memory of an argument is a view, or has been written above.
            known = {storage_id(one) for one in leaves((args, kwargs), Tensor)} - {None}
            for place, value in enumerate(leaves(result)):
                if not isinstance(value, Tensor):
                    text = contents.text_digest(_text(value))
                    found.append((number + place, OUTPUT, contents.Digest(text)))
                elif operator.is_entry or storage_id(value) not in known:
                    if is_late or operator.is_empty or place in operator.scratch:
                        self._memory.set(value, None if is_late else EMPTY)
                    else:
                        found += [(number + place, OUTPUT, d) for d in self._digests(value)]
                        self._memory.set(value, KNOWN)
        return found

    def _digests(self, tensor: Tensor) -> list[contents.Digest]:
        found = contents.digests(tensor, self._pool)
        if not found and contents.has_content(tensor):
            self.uncompared.add(f"{type(tensor).__name__} of {tensor.dtype}, {tensor.layout}")
        return found


def _is_housekeeping(function: Any) -> bool:
    """Return whether an operation belongs to no program: it marks a time, or unpickles a tensor.

    Tensors from a loader's workers are unpickled in the order in which they arrive.
    """
    return function.namespace == "profiler" or sys._getframe(2).f_code in _REBUILDING


_REBUILDING = {
    function.__code__
    for name, function in vars(torch._utils).items()
    if name.startswith("_rebuild") and hasattr(function, "__code__")
}


def leaves(value: Any, kind: type | tuple[type, ...] = object) -> Iterator[Any]:
    """Yield what tuples, lists and dicts hold, without None."""
    if isinstance(value, (tuple, list)):
        for one in value:
            yield from leaves(one, kind)
    elif isinstance(value, dict):
        for one in value.values():
            yield from leaves(one, kind)
    elif value is not None and isinstance(value, kind):
        yield value


def constants(args: Any, kwargs: Any) -> str:
    """Return the arguments that are no tensors, as text."""
    named = [f"{name}={_text(value)}" for name, value in kwargs.items()]
    return ", ".join([*map(_text, args), *named])


def generator_of(read: list[Tensor], args: Any, kwargs: Any) -> tuple[int, Tensor | None]:
    """Return the state of the generator that an operation draws from: a given one, or the default.

    Returns:
        Whether it was given, as 1 or 0, and the state; None where there is none to read.
    """
    for one in leaves((args, kwargs), torch.Generator):
        return 1, one.get_state()
    device = kwargs.get("device") or next((one.device for one in read), torch.device("cpu"))
    one = default_generator(torch.device(device))
    return 0, None if one is None else one.get_state()


def default_generator(device: torch.device) -> torch.Generator | None:
    if device.type == "cpu":
        return torch.default_generator
    module = getattr(torch, device.type, None)
    generators = getattr(module, "default_generators", ())
    index = device.index
    if index is None and generators:
        index = module.current_device()
    return generators[index] if index is not None and index < len(generators) else None


def tensors_of(
    keys: Iterable[int | str], args: Any, kwargs: Any, is_left_out: bool = False
) -> Iterator[Tensor]:
    """Yield the tensors of the arguments with these positions and names, or of all others."""
    for key, value in (*enumerate(args), *kwargs.items()):
        if (key in keys) is not is_left_out:
            yield from leaves(value, Tensor)


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return "T"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, _PLAIN):
        return repr(value)
    return type(value).__name__  # an object's own form may have its address


_PLAIN = (
    *(bool, int, float, complex, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


def _is_late(operator: Operator, read: Any, args: Any, kwargs: Any, result: Any) -> bool:
    """Return whether a copy from a device to the host may still run."""
    if not operator.non_blocking:
        return False
    position, name = operator.non_blocking
    given = args[position] if len(args) > position else kwargs.get(name)  # type: ignore[operator]
    is_from_device = any(one.device.type != "cpu" for one in read)
    return (
        bool(given)
        and is_from_device
        and any(one.device.type == "cpu" for one in (*leaves(result, Tensor), *read))
    )
