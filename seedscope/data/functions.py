"""What functions refer to, and where objects are found."""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

OWN = frozenset({*sys.stdlib_module_names, "torch", "numpy", "seedscope"})
_IMPORT = dis.opmap["IMPORT_NAME"]
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
    """Yield the globals that a function names, and what it names of modules.

    A module is a global, an attribute of another module that is named, or imported by the
    function itself.
    """
    names, known = _names(function.__code__), function.__globals__
    package = f"{known.get('__package__') or ''}."
    imports = [f"{at}{name}" for at in ("", package) for name in _imports(function.__code__)]
    modules = [known, *(namespace(sys.modules.get(name.strip("."))) for name in imports)]
    seen = set[int]()
    while modules:
        inner = modules.pop(0)
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        for name in names:
            value: Any = inner.get(name)
            if issubclass(type(value), ModuleType):
                modules.append(namespace(value))
            elif name in inner and (inner is known or _is_searched(inner)):
                yield _in_module(inner, name), value


def module_attributes(module: ModuleType) -> Iterator[Found]:
    """Yield what a module of the user has, besides other modules."""
    inner = namespace(module)
    if _is_searched(inner) and not is_installed(str(inner.get("__name__")).partition(".")[0]):
        for name, value in [*inner.items()]:
            if not (name.startswith("__") or issubclass(type(value), ModuleType)):
                yield _in_module(inner, name), value


def namespace(module: Any) -> dict[str, Any]:
    """Return what a module has, past any code of its own: a lazy one would be loaded by that."""
    if not issubclass(type(module), ModuleType):
        return {}
    found: dict[str, Any] = vars(ModuleType)["__dict__"].__get__(module)
    return found


def _is_searched(inner: dict[str, Any]) -> bool:
    """Return whether a module may have generators that a scope does not govern."""
    return str(inner.get("__name__")).partition(".")[0] not in OWN


def _in_module(inner: dict[str, Any], name: str) -> Place:
    # A spawned worker has the main module under another name.
    module = str(inner.get("__name__"))
    return Place(Place(None, "{}", "__main__" if module == "__mp_main__" else module), ".{}", name)


@functools.lru_cache(maxsize=4096)
def _names(code: CodeType) -> tuple[str, ...]:
    """Return the names of globals and attributes in a function and in the functions inside."""
    inside = (name for constant in _codes(code) for name in _names(constant))
    return tuple(dict.fromkeys((*code.co_names, *inside)))


@functools.lru_cache(maxsize=4096)
def _imports(code: CodeType) -> tuple[str, ...]:
    """Return the names of modules that a function imports, or the functions inside do."""
    found = [name for constant in _codes(code) for name in _imports(constant)]
    if _IMPORT in code.co_code[::2]:  # else it need not be read
        steps = dis.get_instructions(code)
        found += [step.argval for step in steps if step.opcode == _IMPORT]
    return tuple(found)


def _codes(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def package_of(thing: Any) -> str:
    """Return the package of a class or a function."""
    module = vars(thing).get("__module__") if isinstance(thing, type) else thing.__module__
    return module.partition(".")[0] if isinstance(module, str) else "builtins"


@functools.lru_cache(maxsize=4096)
def is_installed(package: str) -> bool:
    """Return whether a package lies where installed libraries lie."""
    inner = namespace(sys.modules.get(package))
    places = [inner.get("__file__") or "", *(inner.get("__path__") or ())]
    return any(str(place).startswith(_INSTALLED) for place in places)
