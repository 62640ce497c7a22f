"""What functions refer to, and where objects are found."""

from __future__ import annotations

import functools
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

OWN = frozenset({*sys.stdlib_module_names, "torch", "numpy", "seedscope"})
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})


class Place(NamedTuple):
    """Where an object was found: at the place before, behind a name such as `.rng` or `[3]`."""

    before: Place | None
    form: str
    name: Any

    def path(self) -> str:
        place: Place | None = self
        parts = []
        while place is not None:
            parts.append(place.form.format(place.name))
            place = place.before
        return "".join(reversed(parts))


Found = tuple[Place, Any]


def named(place: Place, values: Any) -> Iterator[Found]:
    return ((Place(place, ".{}", name), value) for name, value in [*values.items()])


def closure(place: Place, function: FunctionType) -> Iterator[Found]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            yield Place(place, ".<{}>", name), cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield Place(place, ".{}", "__defaults__"), function.__defaults__
    yield Place(place, ".{}", "__kwdefaults__"), function.__kwdefaults__
    yield from named(place, vars(function))


def named_globals(function: FunctionType) -> Iterator[Found]:
    """Yield the globals that a function names, and the attributes of modules among them."""
    names, known = _names(function.__code__), function.__globals__
    for name in names:
        value: Any = known.get(name)
        if not issubclass(type(value), ModuleType):
            yield _in_module(known, name), value
        elif value.__name__.partition(".")[0] not in OWN:
            inner = vars(value)
            yield from ((_in_module(inner, name), inner[name]) for name in names if name in inner)


def _in_module(namespace: dict[str, Any], name: str) -> Place:
    # A spawned worker has the main module under another name.
    module = str(namespace.get("__name__"))
    return Place(Place(None, "{}", "__main__" if module == "__mp_main__" else module), ".{}", name)


@functools.lru_cache(maxsize=4096)
def _names(code: CodeType) -> tuple[str, ...]:
    """Return the names of globals and attributes in a function and in the functions inside."""
    found = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found.update(dict.fromkeys(_names(constant)))
    return tuple(found)


def package_of(thing: Any) -> str:
    """Return the package of a class or a function."""
    module = vars(thing).get("__module__") if isinstance(thing, type) else thing.__module__
    return module.partition(".")[0] if isinstance(module, str) else "builtins"


@functools.lru_cache(maxsize=4096)
def is_installed(package: str) -> bool:
    """Return whether a package lies where installed libraries lie."""
    module = sys.modules.get(package)
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return any(str(place).startswith(_INSTALLED) for place in places)
