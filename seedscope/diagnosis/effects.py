"""What operations read and write, as digests."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from . import contents
from .call import Call, leaves, text
from .contents import Digest
from .memory import EMPTY, KNOWN, Memory, memory_size, storage_id
from .trace import GENERATOR, INPUT, OUTPUT, UNWRITTEN

Found = list[tuple[int, int, Digest]]  # the place, the kind and the digest


@dataclass
class Before:
    """What an operation was about to read.

    Attributes:
        found: the digests of what no operation before it has written.
        unwritten: those of memory that nothing has written, by the `id` of the tensor.
        writers: the numbers of the operations that have written what it reads.
        sizes: the bytes of memory behind each argument that it may resize.
        taken: the tensors from outside that are known from now on.
    """

    found: Found = field(default_factory=list)
    unwritten: dict[int, list[Digest]] = field(default_factory=dict)
    writers: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    taken: list[Tensor] = field(default_factory=list)

    @property
    def generator(self) -> list[Digest]:
        return [digest for _, kind, digest in self.found if kind == GENERATOR]


class Effects:
    """Finds what operations read and write, and knows which memory they have written before.

    Args:
        pool: threads that hash large tensors.

    Attributes:
        uncompared: types of tensors whose content cannot be read.
    """

    def __init__(self, pool: Executor) -> None:
        self.uncompared: set[str] = set()
        self._memory = Memory()
        self._pool = pool

    def before(self, call: Call, index: int) -> Before:
        """Return the digests of what a call reads and no operation before it has written.

        `index` is the number of the operation.
        """
        result = Before()
        for number, tensor in enumerate(call.read()):
            state, writer = self._memory.state(tensor)
            result.writers.append(writer)
            if state is KNOWN:
                continue
            digests = self._digests(tensor)
            kind = UNWRITTEN if state is EMPTY else INPUT
            result.found += [(number, kind, one) for one in digests]
            if state is EMPTY:
                result.unwritten[id(tensor)] = digests
            else:
                self._memory.write(tensor, index)  # as if: it has been compared
                result.taken.append(tensor)
        if call.operator.is_random:
            is_given, state_of_it = call.generator()
            if state_of_it is not None:
                result.found += [(is_given, GENERATOR, d) for d in contents.digests(state_of_it)]
        if call.operator.is_empty:
            result.sizes = [memory_size(one) for one in call.written()]
        return result

    def forget(self, before: Before) -> None:
        """Take back what `before` has noted, for an operation that raised."""
        for tensor in before.taken:
            self._memory.set(tensor, None)

    def after(self, call: Call, index: int, before: Before, result: Any) -> Found:
        """Return the digests of what a call has written."""
        operator = call.operator
        is_late = operator.is_deferred or _is_late(call, result)
        is_empty = operator.is_empty or (operator.is_copy and bool(before.unwritten))
        found: Found = []
        written = call.written()
        for number, tensor in enumerate(written):
            digests = [] if is_late or is_empty else self._digests(tensor)
            if is_late:
                self._memory.set(tensor, None)
            elif is_empty or _is_untouched(digests, before.unwritten.get(id(tensor))):
                if not before.sizes or before.sizes[number] < memory_size(tensor):
                    self._memory.set(tensor, EMPTY)
            else:
                found += [(number, OUTPUT, one) for one in digests]
                self._memory.write(tensor, index)
        # A result in the memory of an argument is a view, or has been written above.
        known = {storage_id(one) for _, one in call.tensors} - {None}
        values = [result] if isinstance(result, Tensor) else leaves(result)
        for number, value in enumerate(values):
            place = len(written) + number
            if not isinstance(value, Tensor):
                found.append((place, OUTPUT, Digest(contents.text_digest(text(value)))))
            elif not operator.is_entry and storage_id(value) in known:
                continue
            elif is_late or is_empty or number in operator.scratch:
                self._memory.set(value, None if is_late else EMPTY)
            else:
                found += [(place, OUTPUT, one) for one in self._digests(value)]
                self._memory.set(value, KNOWN, index)
        return found

    def _digests(self, tensor: Tensor) -> list[Digest]:
        found = contents.digests(tensor, self._pool)
        if not found and contents.has_content(tensor):
            self.uncompared.add(f"{type(tensor).__name__} of {tensor.dtype}, {tensor.layout}")
        return found


def _is_untouched(after: list[Digest], before: list[Digest] | None) -> bool:
    """Return whether unwritten memory is as it was, such as the noise of an rrelu in evaluation.

    On a device nothing is compared before the end of the run.
    """
    on_host = before is not None and all(isinstance(one.value, int) for one in (*before, *after))
    return on_host and before == after


def _is_late(call: Call, result: Any) -> bool:
    """Return whether a copy from a device to the host may still run."""
    if not call.operator.non_blocking:
        return False
    position: Any = call.operator.non_blocking[0]
    name: Any = call.operator.non_blocking[1]
    given = call.args[position] if len(call.args) > position else call.kwargs.get(name)
    tensors = [*(one for _, one in call.tensors), *leaves(result, Tensor)]
    kinds = {one.device.type for one in tensors}
    return bool(given) and "cpu" in kinds and kinds != {"cpu"}
