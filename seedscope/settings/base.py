"""Determinism settings, and groups of settings that are captured and restored together."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from itertools import compress
from typing import Any, NamedTuple

from torch.backends import ContextProp

from ..support.showing import shown
from .allowed import Allowed, like


class Setting(NamedTuple):
    """A process-wide switch, such as `"cudnn.benchmark"`.

    Attributes:
        name: the name.
        read: returns the present value.
        write: sets a value.
        allows: returns whether `write` can set a value, which may have any type.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    allows: Allowed


class Entangled(Setting):
    """A setting whose write may change the values of other entangled settings."""


class Gated(Setting):
    """A setting that is written before all others if that switches it on, else after them."""


class Settings:
    """An ordered group of settings that is captured, applied and restored as a whole.

    A state is the list of values in the order of `names`. Only values that differ are
    written: most writes take longer than a read.
    """

    name = "settings"

    def __init__(
        self,
        settings: Iterable[Setting],
        settle: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        """Group `settings`; `settle` maps values to those that are read once they are written."""
        self._settings = tuple(settings)
        self._settle = settle
        self._reads = [setting.read for setting in self._settings]
        self._places = {setting.name: place for place, setting in enumerate(self._settings)}
        self._entangled = {
            place for place, setting in enumerate(self._settings) if isinstance(setting, Entangled)
        }
        self._gated = [
            place for place, setting in enumerate(self._settings) if isinstance(setting, Gated)
        ]

    @property
    def names(self) -> list[str]:
        return list(self._places)

    def capture(self) -> list[Any]:
        return [read() for read in self._reads]

    def encode(self, state: list[Any]) -> dict[str, Any]:
        """Return the values by name."""
        return dict(zip(self._places, state, strict=True))

    def decode(self, saved: Mapping[str, Any]) -> list[Any]:
        """Return the state of the saved values; what `saved` lacks has its present value.

        Names that no setting has are left out.

        Raises:
            ValueError: a setting cannot have its saved value.
        """
        values = self.encode(self.capture())
        for setting in self._settings:
            if setting.name in saved:
                value = values[setting.name] = saved[setting.name]
                if not setting.allows(value):
                    raise ValueError(
                        f"the saved state has {shown(value)} as the setting {setting.name}, which "
                        "cannot have this value: the state is damaged, or another version saved it"
                    )
        return [*self._settle(values).values()]

    def apply(self, values: Mapping[str, Any], now: list[Any]) -> None:
        """Write the `values`, in their order, that differ from `now`, the state just captured."""
        for name, value in values.items():
            place = self._places[name]
            if now[place] != value:
                self._settings[place].write(value)

    def in_order(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return `values` in the order in which they are to be written."""
        by_place = {self._places[name]: value for name, value in values.items()}
        places = self._in_order([*by_place], by_place)
        return {self._settings[place].name: by_place[place] for place in places}

    def merged(self, state: list[Any], values: Mapping[str, Any]) -> list[Any]:
        """Return `state` with `values` in it."""
        merged = [*state]
        for name, value in values.items():
            merged[self._places[name]] = value
        return merged

    def changes(self, before: list[Any], after: list[Any]) -> dict[str, Any]:
        """Return the values of `after` that differ from those of `before`, by name."""
        if before == after:
            return {}
        pairs = zip(self._places, before, after, strict=True)
        return {name: value for name, old, value in pairs if value != old}

    def restore(self, state: list[Any], now: list[Any] | None = None) -> None:
        """Write the values of `state` that differ from the present values.

        A failure does not stop the other writes.

        Args:
            state: the values to restore.
            now: the present values; captured here by default.

        Raises:
            RuntimeError: settings could not be written; the message names them.
        """
        everything = range(len(state))
        errors: dict[int, Exception] = {}
        try:
            now = self.capture() if now is None else now
        except Exception as error:  # one by one below, to find and name an unreadable setting
            errors = dict.fromkeys(everything, error)
        else:
            if now != state:
                places = [*compress(everything, map(operator.ne, now, state))]
                # A write may change a later entangled setting: read each just before its write.
                if one_by_one := not self._entangled.isdisjoint(places):
                    places = [*everything]
                errors = self._write(state, self._in_order(places, state), one_by_one)
        if errors:
            # Once more: a signal handler may have raised there, and its error is then raised.
            failed = self._write(state, errors, one_by_one=True)
            cause = next(iter((failed or errors).values()))
            if not failed:
                raise cause
            names = ", ".join(self._settings[place].name for place in failed)
            raise RuntimeError(f"could not write {names}: {cause}") from cause

    def _in_order(self, places: list[int], values: Any) -> list[int]:
        """Return the places in the order in which their values are written."""
        for place in self._gated:
            if place in places:
                places.remove(place)
                places.insert(0 if values[place] else len(places), place)
        return places

    def _write(
        self, state: list[Any], places: Iterable[int], one_by_one: bool
    ) -> dict[int, Exception]:
        """Write the settings at `places`, and return the errors by place."""
        errors: dict[int, Exception] = {}
        for place in places:
            setting = self._settings[place]
            try:
                if not one_by_one or setting.read() != state[place]:
                    setting.write(state[place])
            except Exception as error:
                errors[place] = error
        return errors

    def changed(self, a: list[Any], b: list[Any]) -> list[str]:
        return [name for name, x, y in zip(self.names, a, b, strict=True) if x != y]


def backend_flags(backend: Any, *, without: tuple[str, ...], **allowed: Allowed) -> list[Setting]:
    """Return a setting for every flag of a `torch.backends` module, in any version of torch.

    A flag that is not in `allowed` can have values such as it has now.

    The settings call the flag's getter and setter. These work after
    `torch.backends.disable_global_flags()`, where an assignment raises, and a read takes
    0.02 us instead of 0.2.
    """
    prefix = backend.__name__.rpartition(".")[2]
    return [
        Setting(
            f"{prefix}.{name}",
            flag.getter,
            flag.setter,
            allowed.get(name) or like(flag.getter()),
        )
        for name, flag in vars(type(backend)).items()
        if isinstance(flag, ContextProp) and name not in without
    ]
