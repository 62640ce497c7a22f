"""The dispatch mode that writes a `Trace`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
)

from ..support.compiler import opaque
from ..support.torch_internals import backward_node, next_sequence_number
from .call import Call, leaves
from .contents import WITHOUT_CONTENT, digests, has_content, has_own_dispatch
from .effects import Effects, Found
from .operators import Operator, operator_of
from .places import Place, caller, calling, owner
from .trace import Tables, Trace

#: Called in place of an operation that is looked at, with its number; returns what it returns.
Look = Callable[[Call, int], Any]


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation of this thread, and of the backwards that it starts.

    Args:
        tables: the tables of all runs.
        focus: what is called in place of an operation of the first thread, by its number.
        always: what is called in place of every other one of that thread.
    """

    def __init__(
        self,
        tables: Tables,
        focus: Mapping[int, Look] | None = None,
        always: Look | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace: Trace = Trace(tables)
        self.regions: int = 0  # compiled ones
        #: The first operation that draws from a default generator: name, place, owner.
        self.first_draw: tuple[str, Place | None, Any] | None = None
        self._focus: Mapping[int, Look] = focus or {}
        self._always = always
        self._process = os.getpid()
        self._lanes: dict[int, int] = {}
        self._nodes: dict[int, int] = {}  # the forward operation of each node of autograd
        self._inside = set[int]()  # threads that are paused, such as in a compiled region
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(torch.get_num_threads())  # starts threads when it is used
        self._effects = Effects(self._pool)

    #: Operations that take functions, such as torch.cond, come here too.
    supports_higher_order_operators: bool = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let compiled functions run compiled, and not in their eager form."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: what torch puts around the method below imports the compiler (1.2 s)."""
        return False

    @opaque
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_passed_by() or _is_housekeeping(func):
            return func(*args, **kwargs)
        for one in types:
            if one.__name__ in WITHOUT_CONTENT:
                return func(*args, **kwargs)
            if has_own_dispatch(one):
                return NotImplemented  # the subclass calls operations on the tensors inside
        return self.record(Call(operator_of(func), func, args, kwargs))

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
        operator = Operator("compiled region", written)
        return self.record(Call(operator, function, tuple(inputs), {}))

    def record(self, call: Call) -> Any:
        """Run a call, and write down what it read and what it wrote."""
        index = len(self.trace)
        with torch._C.DisableTorchFunction():
            before = self._effects.before(call, index)
        frame = calling()
        place = caller(frame)
        look = None if self._lane() else self._focus.get(index, self._always)
        try:
            result = call.run() if look is None else look(call, index)
        except BaseException:
            self._effects.forget(before)
            raise
        if _is_pretended(call, result):
            return result
        with torch._C.DisableTorchFunction():
            after = self._effects.after(call, index, before, result)
            if call.operator.is_random and self.first_draw is None:
                is_given, state = call.generator()
                if state is not None and not is_given and digests(state) != before.generator:
                    self.first_draw = call.operator.name, place, owner(frame)
        with self._lock:
            self._add(call, [*before.found, *after], place, before.writers)
        return result

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._pool.shutdown()

    def finish(self) -> Trace:
        """Return the trace, with the sums from the devices."""
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

    @property
    def uncompared(self) -> set[str]:
        """The types of tensors whose content cannot be read."""
        return self._effects.uncompared

    def _is_passed_by(self) -> bool:
        """Return whether this is a forked process, or the thread is paused."""
        return threading.get_ident() in self._inside or os.getpid() != self._process

    def _lane(self) -> int:
        return self._lanes.setdefault(threading.get_ident(), len(self._lanes))

    def _add(self, call: Call, found: Found, place: Place | None, writers: list[int]) -> None:
        trace, tables = self.trace, self.trace.tables
        for number, kind, digest in found:
            trace.add_entry(number, kind, digest.value, digest.form)
        node = backward_node()
        if node is None:
            forward = -1
            self._nodes.setdefault(next_sequence_number() - 1, len(trace))
        else:
            forward = self._nodes.get(node, -1)
        number = tables.operations.number(call.operator.name)
        if call.operator.written:
            tables.writing.add(number)
        trace.add(
            number,
            tables.constants.number(call.constants()),
            tables.places.number(place),
            self._lane(),
            forward,
            hash(tuple(writers)) % 2**64,
        )


def _is_pretended(call: Call, result: Any) -> bool:
    """Return whether an operation has computed nothing, on meta tensors or fake ones."""
    first = result
    if not isinstance(first, torch.Tensor):
        first = call.tensors[0][1] if call.tensors else next(leaves(result, torch.Tensor), None)
    return first is not None and not has_content(first)


def _is_housekeeping(function: Any) -> bool:
    """Return whether an operation belongs to no program: it marks a time, or unpickles a tensor.

    Tensors from a loader's workers are unpickled in the order in which they arrive.
    """
    frame = calling()
    is_rebuilding = frame is not None and frame.f_code in _REBUILDING
    return is_rebuilding or function.namespace == "profiler"


_REBUILDING = {
    function.__code__
    for name, function in vars(torch._utils).items()
    if name.startswith("_rebuild") and hasattr(function, "__code__")
}
