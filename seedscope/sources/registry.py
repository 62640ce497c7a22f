"""The registered sources, in the order in which a scope captures them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .accelerators import accelerators
from .base import ForeignSource, Source
from .cupy import CuPy
from .numpy import NumPy
from .python import Python
from .torch_cpu import TorchCPU
from .unseeded import Unseeded
from .watch import WATCH

UNSEEDED = Unseeded()
WATCH.more.append(UNSEEDED.functions)

_registered: tuple[Source, ...] = (
    Python(),
    NumPy(),
    TorchCPU(),
    *accelerators(),
    CuPy(),
    UNSEEDED,
)


def register_source(source: Any) -> Callable[[], None]:
    """Add `source` to every scope entered from now on; return a function that removes it.

    Args:
        source: an object with a unique `name` and the methods `capture() -> state`,
            `seed(seed: int)` and `restore(state)`. A state of `None` means that the source
            is absent, and a scope then leaves it alone. The other methods of `Source` are
            optional: `encode(state)` and `decode(payload)` convert states that `torch.save`
            cannot store as they are.

    Raises:
        TypeError: a method or the name is missing.
        ValueError: the name is already registered.
    """
    global _registered
    name = getattr(source, "name", None)
    missing = [
        method
        for method in ("capture", "seed", "restore")
        if not callable(getattr(source, method, None))
    ]
    if not isinstance(name, str) or missing:
        lacks = "a name (str)" if not isinstance(name, str) else ", ".join(missing)
        raise TypeError(
            f"a source needs a name and the methods capture(), seed(seed) and restore(state); "
            f"{source!r} lacks {lacks}"
        )
    if name in source_names():
        raise ValueError(f"a source named {name!r} is already registered; choose another name")
    # A scope keeps states by source: a source that compares by value would lose its own.
    kind: Any = type(source)
    is_key = isinstance(source, Source) and kind.__eq__ is object.__eq__
    entry: Source = source if is_key else ForeignSource(source)
    _registered = (*_registered, entry)

    def unregister() -> None:
        global _registered
        _registered = tuple(other for other in _registered if other is not entry)

    return unregister


def running_sources() -> tuple[Source, ...]:
    """Return the sources whose generators exist: those that a DataLoader worker must seed."""
    return tuple(source for source in _registered if source.is_running())


def source_names() -> tuple[str, ...]:
    return tuple(source.name for source in _registered)


def select_sources(names: Iterable[str] | None = None) -> tuple[Source, ...]:
    """Return all registered sources, or those with the given names.

    Raises:
        TypeError: `names` is a string, or not a collection.
        ValueError: a name is not registered; the message lists the registered names.
    """
    if names is None:
        return _registered
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f'sources must be a collection of names such as ["torch"], got {names!r}')
    chosen = tuple(names)
    known = source_names()
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"unknown sources {unknown}; registered sources: {list(known)}")
    return tuple(source for source in _registered if source.name in chosen)
