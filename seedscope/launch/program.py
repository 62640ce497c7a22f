"""Find a script or module as Python does, and print its traceback as Python does."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import pkgutil
import sys
import types
from typing import TYPE_CHECKING, Any

from .interpreter import LaunchError

if TYPE_CHECKING:
    pass


def find_program(name: str, is_module: bool) -> tuple[types.ModuleType, types.CodeType]:
    """Return a new `__main__` and its code, and set the import path as Python does.

    Raises:
        LaunchError: the script or module does not exist, or cannot be read.
    """
    main = types.ModuleType("__main__")
    vars(main).update(__builtins__=sys.modules["builtins"], __cached__=None)
    try:
        if is_module:
            _set_first_path(os.getcwd())
            return main, _load_spec(main, _locate(name), f"the module {name}")
        path = os.path.join(os.getcwd(), name)
        if os.path.isdir(path) or pkgutil.get_importer(path) is not None:  # a folder or an archive
            _set_first_path(os.path.abspath(name))
            spec = importlib.machinery.PathFinder.find_spec("__main__", [os.path.abspath(name)])
            return main, _load_spec(main, spec, f"{name}, which needs a __main__.py")
        _set_first_path(os.path.dirname(os.path.realpath(name)))
        main.__file__ = path
        main.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
        with open(name, "rb") as file:
            return main, compile(file.read(), path, "exec", dont_inherit=True)
    except OSError as error:
        raise LaunchError(f"cannot run {name}: {error.strerror or error}") from error


def _locate(name: str) -> Any:
    """Return the spec of a module, or of a package's `__main__`, without importing a package.

    The import of a package may draw numbers, and must therefore run in the scope.
    """
    spec: Any = None
    path = None
    full = ""
    for part in [*name.split("."), "__main__"]:
        full = f"{full}.{part}" if full else part
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        spec = next(filter(None, (finder.find_spec(full, path) for finder in finders)), None)
        path = spec and spec.submodule_search_locations
        if path is None:
            return spec if full in (name, f"{name}.__main__") else None
    return spec


def _load_spec(main: types.ModuleType, spec: Any, what: str) -> types.CodeType:
    code = spec.loader.get_code(spec.name) if hasattr(spec and spec.loader, "get_code") else None
    if code is None:
        raise LaunchError(f"cannot run {what}: not found")
    main.__file__, main.__spec__ = spec.origin, spec
    main.__loader__, main.__package__ = spec.loader, spec.parent
    return code  # type: ignore[no-any-return]


def _set_first_path(folder: str) -> None:
    """Put the program's folder first on the import path, in place of seedscope's."""
    if getattr(sys.flags, "safe_path", False):  # python -P adds no folder
        return
    sys.path[0] = folder


def print_as_python_does(error: BaseException, code: types.CodeType) -> None:
    """Print the traceback without the frames of this package.

    The interpreter, which handles the error next, then prints nothing more, and ends with the
    usual exit code or signal.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not code:
        traceback = traceback.tb_next
    if traceback is not None:
        error = error.with_traceback(traceback)
    sys.excepthook(type(error), error, error.__traceback__)
    sys.excepthook = lambda *_: None
