"""What an operation reads and writes, as digests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import contents
from .contents import Digest
from .memory import EMPTY, KNOWN, Memory, storage_id
from .operators import Operator
from .trace import GENERATOR, INPUT, OUTPUT, UNWRITTEN

Found = list[tuple[int, int, Digest]]  # the place, the kind and the digest


@dataclass
class Before:
    """What an operation was about to read.

    Attributes:
        found: the digests of what no operation before it has written.
        unwritten: those of memory that nothing has written, by the `id` of the tensor.
    """

    found: Found = field(default_factory=list)
    unwritten: dict[int, list[Digest]] = field(default_factory=dict)

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

    def before(self, operator: Operator, args: Any, kwargs: Any) -> Before:
        """Return the digests of what the operation reads and no operation before it has written."""
        result = Before()
        for number, tensor in enumerate(read_by(operator, args, kwargs)):
            state = self._memory.state(tensor)
            if state is KNOWN:
                continue
            digests = self._digests(tensor)
            kind = UNWRITTEN if state is EMPTY else INPUT
            result.found += [(number, kind, one) for one in digests]
            if state is EMPTY:
                result.unwritten[id(tensor)] = digests
            else:
                self._memory.write(tensor)  # as if: it has been compared
        if operator.is_random:
            is_given, state_of_it = generator_of(args, kwargs)
            if state_of_it is not None:
                result.found += [(is_given, GENERATOR, d) for d in contents.digests(state_of_it)]
        return result

    def after(
        self, operator: Operator, before: Before, args: Any, kwargs: Any, result: Any
    ) -> Found:
        """Return the digests of what the operation has written."""
        is_late = operator.is_deferred or _is_late(operator, args, kwargs, result)
        is_empty = operator.is_empty or (operator.is_copy and bool(before.unwritten))
        found: Found = []
        number = 0
        for tensor in tensors_of(operator.written, args, kwargs):
            digests = [] if is_late or is_empty else self._digests(tensor)
            if is_late:
                self._memory.set(tensor, None)
            elif is_empty or _is_untouched(digests, before.unwritten.get(id(tensor))):
                self._memory.set(tensor, EMPTY)
            else:
                found += [(number, OUTPUT, one) for one in digests]
                self._memory.write(tensor)
            number += 1
        # A result in the memory of an argument is a view, or has been written above.
        known = {storage_id(one) for one in leaves((args, kwargs), Tensor)} - {None}
        for place, value in enumerate(leaves(result)):
            if not isinstance(value, Tensor):
                found.append((number + place, OUTPUT, Digest(contents.text_digest(text(value)))))
            elif not operator.is_entry and storage_id(value) in known:
                continue
            elif is_late or is_empty or place in operator.scratch:
                self._memory.set(value, None if is_late else EMPTY)
            else:
                found += [(number + place, OUTPUT, one) for one in self._digests(value)]
                self._memory.set(value, KNOWN)
        return found

    def _digests(self, tensor: Tensor) -> list[Digest]:
        found = contents.digests(tensor, self._pool)
        if not found and contents.has_content(tensor):
            self.uncompared.add(f"{type(tensor).__name__} of {tensor.dtype}, {tensor.layout}")
        return found


def read_by(operator: Operator, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors whose content an operation reads."""
    if operator.is_view:
        return []
    return [*tensors_of(operator.unread, args, kwargs, is_left_out=True)]


def tensors_of(
    keys: Iterable[int | str], args: Any, kwargs: Any, is_left_out: bool = False
) -> Iterator[Tensor]:
    """Yield the tensors of the arguments with these positions and names, or of all others."""
    for key, value in (*enumerate(args), *kwargs.items()):
        if (key in keys) is not is_left_out:
            yield from leaves(value, Tensor)


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
    return ", ".join([*map(text, args), *(f"{name}={text(one)}" for name, one in kwargs.items())])


def text(value: Any) -> str:
    """Return the form of an argument; a T for a tensor."""
    if isinstance(value, Tensor):
        return "T"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(text, value))}]"
    if isinstance(value, _PLAIN):
        return repr(value)
    return type(value).__name__  # an object's own form may have its address


_PLAIN = (
    *(bool, int, float, complex, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


def generator_of(args: Any, kwargs: Any) -> tuple[int, Tensor | None]:
    """Return the state of the generator that an operation draws from: a given one, or the default.

    Returns:
        Whether it was given, as 1 or 0, and the state; None where there is none to read.
    """
    for one in leaves((args, kwargs), torch.Generator):
        return 1, one.get_state()
    devices = (one.device for one in leaves((args, kwargs), Tensor))
    device = kwargs.get("device") or next(devices, "cpu")
    default = default_generator(torch.device(device))
    return 0, None if default is None else default.get_state()


def default_generator(device: torch.device) -> torch.Generator | None:
    """Return the generator that a device's operations draw from; None if it has none to read."""
    if device.type == "cpu":
        return torch.default_generator
    module: Any = getattr(torch, device.type, None)
    generators: tuple[torch.Generator, ...] = getattr(module, "default_generators", ())
    if not generators:
        return None
    return generators[module.current_device() if device.index is None else device.index]


def _is_untouched(after: list[Digest], before: list[Digest] | None) -> bool:
    """Return whether unwritten memory is as it was, such as the noise of an rrelu in evaluation.

    On a device nothing is compared before the end of the run.
    """
    on_host = before is not None and all(isinstance(one.value, int) for one in (*before, *after))
    return on_host and before == after


def _is_late(operator: Operator, args: Any, kwargs: Any, result: Any) -> bool:
    """Return whether a copy from a device to the host may still run."""
    if not operator.non_blocking:
        return False
    position: Any = operator.non_blocking[0]
    given = args[position] if len(args) > position else kwargs.get(operator.non_blocking[1])
    kinds = [one.device.type for one in leaves((args, kwargs, result), Tensor)]
    return bool(given) and "cpu" in kinds and {*kinds} != {"cpu"}
