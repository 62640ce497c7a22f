"""A wrapper that shows the attributes and the class of what it wraps."""

from __future__ import annotations

from typing import Any, ClassVar


class Transparent:
    """A wrapper of `self.dataset`, through which the attributes and methods of it are reached.

    To read, set or delete an attribute that the wrapper itself lacks reaches the dataset, and
    `isinstance` is true for the classes of both. Operators and other special methods are the
    wrapper's own: a proxy that passes them all on would add two datasets without their seeds.
    """

    #: The wrapper's own attributes, besides those that its class has.
    _OWN: ClassVar[frozenset[str]] = frozenset({"dataset"})

    dataset: Any

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # isinstance asks the true class first.
        return type(vars(self).get("dataset", self))

    def __getattr__(self, name: str) -> Any:
        # Before `__init__`, and while it is unpickled, there is no dataset.
        if name.startswith("__") or "dataset" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_own(name):
            object.__setattr__(self, name, value)
        else:
            setattr(self.dataset, name, value)

    def __delattr__(self, name: str) -> None:
        if self._is_own(name):
            object.__delattr__(self, name)
        else:
            delattr(self.dataset, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *dir(self.dataset)})

    def _is_own(self, name: str) -> bool:
        return name in self._OWN or name.startswith("__") or hasattr(type(self), name)
