"""One call of an operation: its arguments, taken apart once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .operators import Operator

_PLAIN = (
    *(bool, int, float, complex, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


class Call:
    """A call of an operation.

    Args:
        operator: what is known of the operation.
        function: what runs it.
        args: its arguments.
        kwargs: its arguments by name.

    Attributes:
        tensors: (position or name, tensor) of each tensor, also of those in lists.
    """

    __slots__ = ("args", "function", "kwargs", "operator", "tensors")

    def __init__(
        self, operator: Operator, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> None:
        self.operator: Operator = operator
        self.function: Callable[..., Any] = function
        self.args: Any = args
        self.kwargs: dict[str, Any] = kwargs
        self.tensors: list[tuple[int | str, Tensor]] = []
        keyed: Iterable[tuple[int | str, Any]] = (*enumerate(args), *kwargs.items())
        for key, value in keyed:
            if isinstance(value, Tensor):
                self.tensors.append((key, value))
            elif isinstance(value, (list, tuple, dict)):
                self.tensors += [(key, one) for one in leaves(value, Tensor)]

    def run(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def read(self) -> list[Tensor]:
        """Return the tensors whose content the operation reads."""
        if self.operator.is_view or self.operator.is_empty:
            return []
        unread = self.operator.unread
        return [one for key, one in self.tensors if key not in unread]

    def written(self) -> list[Tensor]:
        """Return the tensors among the arguments that the operation writes to."""
        written = self.operator.written
        return [one for key, one in self.tensors if key in written] if written else []

    def results(self, result: Any) -> list[Any]:
        """Return what the operation has written: arguments, then results without workspaces."""
        scratch = self.operator.scratch
        given = (one for number, one in enumerate(leaves(result)) if number not in scratch)
        return [*self.written(), *given]

    def constants(self) -> str:
        """Return the arguments that are no tensors, as text."""
        named = [f"{name}={text(one)}" for name, one in self.kwargs.items()]
        return ", ".join([*map(text, self.args), *named])

    def unusual(self) -> str:
        """Return the arguments that are no tensors and no defaults, such as `accumulate=True`."""
        names = [name for name, _ in self.operator.arguments]
        given = dict(zip(names, self.args, strict=False)) | self.kwargs
        defaults = dict(self.operator.arguments)
        return ", ".join(
            f"{name}={value!r:.80}"
            for name, value in given.items()
            if isinstance(value, (bool, int, float, complex, str, list))
            and not [*leaves(value, Tensor)]
            and defaults.get(name) != value
        )

    def generator(self) -> tuple[int, Tensor | None]:
        """Return the state of the generator that it draws from: a given one, or the default.

        Returns:
            Whether it was given, as 1 or 0, and the state; None where there is none to read.
        """
        for one in leaves((self.args, self.kwargs), torch.Generator):
            return 1, one.get_state()
        device = self.kwargs.get("device") or (self.tensors[0][1].device if self.tensors else "cpu")
        default = default_generator(torch.device(device))
        return 0, None if default is None else default.get_state()


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


def text(value: Any) -> str:
    """Return the form of an argument; a T for a tensor."""
    if isinstance(value, Tensor):
        return "T"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(text, value))}]"
    if isinstance(value, _PLAIN):
        return repr(value)
    return type(value).__name__  # an object's own form may have its address


def default_generator(device: torch.device) -> torch.Generator | None:
    """Return the generator that a device's operations draw from; None if it has none to read."""
    if device.type == "cpu":
        return torch.default_generator
    module: Any = getattr(torch, device.type, None)
    generators: tuple[torch.Generator, ...] = getattr(module, "default_generators", ())
    if not generators:
        return None
    return generators[module.current_device() if device.index is None else device.index]
