"""One operation, taken as it runs: its inputs, its outputs, and what replays of it give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .call import Call, default_generator, leaves
from .contents import digest_of
from .memory import storage_id
from .operators import Operator
from .places import Place, callers, calling, owner
from .reach import Reached

REPLAYS = 10
_PROBES = 4


@dataclass
class Capture:
    """What an operation got and gave in one run.

    Attributes:
        operator: the operator.
        arguments: the arguments that are no tensors and are not the defaults, as text.
        outputs: copies of what it wrote.
        held: where the function holds an input, by the number of the input.
        inside: the module or optimizer in whose method it was called, with its class; or empty.
        stack: the places outside of torch, the innermost first.
        replays: the digests that replays on the captured inputs have given.
        other: the outputs of a replay that differ from these.
        with_threads: the same by another number of threads.
        failure: why it could not be replayed.
        count: the number of replays.
    """

    operator: Operator
    arguments: str
    held: dict[int, str]
    inside: str
    stack: list[Place]
    outputs: list[Any] = field(default_factory=list)
    digest: tuple[int, ...] = ()
    input_digests: list[tuple[int, ...]] = field(default_factory=list)
    replays: set[tuple[int, ...]] = field(default_factory=set)
    other: list[Any] | None = None
    with_threads: dict[int, set[tuple[int, ...]]] = field(default_factory=dict)
    failure: str = ""
    count: int = 0

    @property
    def is_confirmed(self) -> bool:
        """Whether equal inputs have given different outputs."""
        return len(self.replays) > 1


class Namer:
    """Notes the module or the optimizer around the operation at which a tracer calls it.

    Attributes:
        inside: its path and class; empty if there is none.
        reached: what the function holds in this run.
    """

    def __init__(self) -> None:
        self.inside: str = ""
        self.reached: Reached = Reached()

    def __call__(self, call: Call, index: int) -> Any:
        holder = owner(calling())
        self.inside = "" if holder is None else self.reached.name_of(holder)
        return call.run()


class Taker:
    """Takes the operation at which a tracer calls it.

    Args:
        is_replayed: whether to run the operation again on copies of its inputs.
        threads: other numbers of threads to replay it with.
        when_taken: called before the operation runs.
        replays: how often it is replayed.

    Attributes:
        found: the operation; None if the run has not come to it.
        reached: what the function holds in this run.
    """

    def __init__(
        self,
        is_replayed: bool = False,
        threads: tuple[int, ...] = (),
        when_taken: Callable[[], None] = lambda: None,
        replays: int = REPLAYS,
    ) -> None:
        self.found: Capture | None = None
        self.reached: Reached = Reached()
        self._when_taken = when_taken
        self._is_replayed = is_replayed
        self._threads = threads
        self._count = replays

    def __call__(self, call: Call, index: int) -> Any:
        self._when_taken()
        with torch._C.DisableTorchFunction():
            copies = _copied((call.args, call.kwargs))
            inputs = call.read()
            held = {n: self.reached.path_of(one) for n, one in enumerate(inputs)}
            frame = calling()
            holder = owner(frame)
            self.found = capture = Capture(
                call.operator,
                call.unusual(),
                {number: path for number, path in held.items() if path is not None},
                "" if holder is None else self.reached.name_of(holder),
                callers(frame),
                input_digests=[digest_of([one]) for one in inputs],
            )
            states = _Generators(call) if self._is_replayed else None
        result = call.run()
        with torch._C.DisableTorchFunction():
            capture.outputs = _copied(call.results(result))
            capture.digest = digest_of(capture.outputs)
            if states is not None:
                self._replay(capture, states, call.function, copies)
        return result

    def _replay(self, capture: Capture, states: _Generators, function: Any, copies: Any) -> None:
        if capture.operator.is_deferred:
            capture.failure = "what other processes or storages take part in is not replayed"
            return
        after = states.read()
        count = torch.get_num_threads()
        try:
            for threads in (None, *self._threads):
                found = capture.replays
                if threads is not None:
                    torch.set_num_threads(threads)
                    found = capture.with_threads.setdefault(threads, set())
                for _ in range(self._count):
                    states.write(states.before)
                    call = Call(capture.operator, function, *_copied(copies))
                    outputs = call.results(call.run())
                    capture.count += threads is None
                    found.add(digest := digest_of(outputs))
                    if digest != capture.digest and capture.other is None:
                        capture.other = outputs
        except Exception as error:
            capture.failure = f"{type(error).__name__}: {error}"[:200]
        finally:
            torch.set_num_threads(count)
            states.write(after)


class Prober:
    """Replays every operation, to catch one that differs only where no digest slows it down.

    A digest gives the threads of an operation the time to fall asleep. After the copy of its inputs
    they are awake.

    Attributes:
        found: the first operation whose replays differ; None if there is none.
        index: its number.
        reached: what the function holds in this run.
    """

    def __init__(self) -> None:
        self.found: Capture | None = None
        self.index: int = -1
        self.reached: Reached = Reached()

    def __call__(self, call: Call, index: int) -> Any:
        if self.found is not None or call.operator.is_view or call.operator.is_empty:
            return call.run()
        taker = Taker(True, replays=_PROBES)
        taker.reached = self.reached
        result = taker(call, index)
        capture = taker.found
        if capture is not None and capture.is_confirmed:
            self.found, self.index = capture, index
        return result


class _Generators:
    """The generators that an operation may draw from."""

    def __init__(self, call: Call) -> None:
        given = [*leaves((call.args, call.kwargs), torch.Generator)]
        devices = {one.device for _, one in call.tensors} | {torch.device("cpu")}
        defaults = [default_generator(device) for device in devices]
        self._generators = [one for one in (*given, *defaults) if one is not None]
        self.before = self.read()

    def read(self) -> list[Tensor]:
        return [one.get_state() for one in self._generators]

    def write(self, states: list[Tensor]) -> None:
        for one, state in zip(self._generators, states, strict=True):
            one.set_state(state)


def _copied(value: Any) -> Any:
    """Return a copy with tensors of its own; those that share memory share it in the copy."""
    tensors = [*leaves(value, Tensor)]
    storages = [storage_id(one) for one in tensors]
    shared = {key for key in storages if storages.count(key) > 1} - {None}
    copies: dict[int, Tensor] = {}
    memories: dict[int | None, Tensor] = {}
    for tensor, key in zip(tensors, storages, strict=True):
        if id(tensor) in copies:
            continue
        if key in shared:
            memory = memories.get(key)
            if memory is None:
                memory = memories[key] = _of_storage(tensor).clone()
            view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            start, form = tensor.storage_offset(), (tensor.shape, tensor.stride())
            copies[id(tensor)] = view.set_(memory.untyped_storage(), start, *form)
        else:
            copies[id(tensor)] = tensor.detach().clone()
    return _mapped(value, lambda one: copies[id(one)])


def _of_storage(tensor: Tensor) -> Tensor:
    """Return the whole memory of a tensor, as bytes."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return [*(_mapped(one, change) for one in value)]
    if isinstance(value, dict):
        return {key: _mapped(one, change) for key, one in value.items()}
    return value
