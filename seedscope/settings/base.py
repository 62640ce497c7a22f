"""What a determinism setting is, and how all of them are captured and restored together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch.backends import ContextProp


class Setting(NamedTuple):
    """A process-wide switch, such as `"cudnn.benchmark"`."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


class Settings:
    """An ordered group of settings that is captured, applied and restored as one.

    A state is the list of values in the order of `names`. Only what differs is
    written: most writes cost more than a read.
    """

    name = "settings"

    def __init__(self, settings: Iterable[Setting]) -> None:
        self._settings = {setting.name: setting for setting in settings}
        self._reads = [setting.read for setting in self._settings.values()]

    @property
    def names(self) -> list[str]:
        return list(self._settings)

    def capture(self) -> list[Any]:
        return [read() for read in self._reads]

    def apply(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            _, read, write = self._settings[name]
            if read() != value:
                write(value)

    def restore(self, state: list[Any]) -> None:
        """Write back what differs; one that fails does not stop the others."""
        failures: list[str] = []
        cause: Exception | None = None
        # Read one by one, not up front: to write one setting can change a later one.
        for (name, read, write), value in zip(self._settings.values(), state, strict=True):
            try:
                if read() != value:
                    write(value)
            except Exception as error:
                failures.append(name)
                cause = error
        if failures:
            raise RuntimeError(f"could not write {', '.join(failures)}: {cause}") from cause

    def changed(self, a: list[Any], b: list[Any]) -> list[str]:
        return [name for name, x, y in zip(self.names, a, b, strict=True) if x != y]


def backend_flags(backend: Any, *, without: tuple[str, ...]) -> list[Setting]:
    """A setting for every flag of a `torch.backends` module, also of those newer torch adds.

    The flag's own getter and setter are called: they work after
    `torch.backends.disable_global_flags()`, where an assignment raises, and a read
    takes 0.02 us instead of 0.2.
    """
    prefix = backend.__name__.rpartition(".")[2]
    return [
        Setting(f"{prefix}.{name}", flag.getter, flag.setter)
        for name, flag in vars(type(backend)).items()
        if isinstance(flag, ContextProp) and name not in without
    ]
