"""A user's function: the name to import it by, its source and code, and how it takes a seed."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from . import conditions


def import_name(fn: Any) -> str | None:
    """Return `module:function`, by which another process can import `fn`; None if it cannot.

    A function of the main script has the name that it would have if the script were imported.
    """
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    found: Any = module
    path = getattr(fn, "__qualname__", "")
    for part in path.split("."):
        found = getattr(found, part, None)
    if module is None or found is not fn:
        return None
    spec = getattr(module, "__spec__", None)
    name = spec.name if spec else Path(getattr(module, "__file__", None) or module.__name__).stem
    return f"{name.removesuffix('.__main__')}:{path}"


def load_function(name: str, script: str | None = None) -> Callable[..., Any]:
    """Return the function that `import_name` gave `name` to, or of `FILE.py:FUNCTION`.

    Modules are looked for in the working folder, and beside `script`, first.

    Raises:
        LookupError: there is no such module or function; the message is one line.
    """
    module, _, path = name.partition(":")
    if not (module and path):
        raise LookupError(f"{name!r} is not of the form MODULE:FUNCTION")
    folders = [os.getcwd()]
    if module.endswith(".py"):
        file = Path(module)
        module, script = file.stem, str(file.absolute())
    if script:
        folders.insert(0, os.path.dirname(script))
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and what it imports is not
        raise LookupError(f"there is no module {module!r} here") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise LookupError(f"{path!r} is not in {module} ({found.__file__})")
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def source_of(fn: Any) -> str | None:
    """Return the path of the file that a function is written in, None where there is none."""
    try:
        return inspect.getsourcefile(inspect.unwrap(fn))
    except TypeError:  # neither a function nor a class: a partial, a callable object
        return conditions.main_file()


def seed_parameter(fn: Any) -> Literal["by name", "first", "no"]:
    """Whether and how `fn` is called with the seed.

    Raises:
        TypeError: it can be called neither with the seed alone nor without.
    """
    if not callable(fn):
        raise TypeError(f"expected a function, got {fn!r} ({type(fn).__name__})")
    try:
        signature = inspect.signature(fn)
    except ValueError:  # a builtin that does not tell
        return "no"
    seed = signature.parameters.get("seed")
    positional = [p for p in signature.parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    try:
        if seed is not None and seed.kind in (seed.POSITIONAL_OR_KEYWORD, seed.KEYWORD_ONLY):
            signature.bind(seed=0)
            return "by name"
        if positional and positional[0].default is positional[0].empty:
            signature.bind(0)
            return "first"
        signature.bind()
    except TypeError as error:
        name = getattr(fn, "__name__", fn)
        raise TypeError(f"{name} is called as fn(seed) or fn(), and cannot be: {error}") from None
    return "no"


def digest_of(fn: Any) -> str | None:
    """Return a digest of a function's code, None where it has none, as a callable object."""
    code = getattr(fn, "__code__", None)
    return code and hashlib.sha256(_spelled(code).encode()).hexdigest()[:16]


def _spelled(code: types.CodeType) -> str:
    inner = [_spelled(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, inner))
