"""A user's function: its import name, source, code digest and seed parameter."""

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
    """Return the name `module:function` under which another process can import `fn`, or None.

    A function of the main script gets the name that importing the script would give it.
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
    """Return the function of that name.

    The folder of `script` and the working folder are put in front of `sys.path`, unless
    they are already in it.

    Args:
        name: a name from `import_name`, or `FILE.py:FUNCTION`.
        script: a file beside which modules are found; `FILE.py` takes its place.

    Raises:
        LookupError: the module or the function does not exist; the message is one line.
    """
    module, _, path = name.partition(":")
    if not (module and path):
        raise LookupError(f"{name!r} does not have the form MODULE:FUNCTION")
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
            raise  # the module exists, but one of its imports does not
        raise LookupError(f"no module {module!r} in the working folder or on sys.path") from error
    for part in path.split("."):
        if not hasattr(found, part):
            where = getattr(sys.modules[module], "__file__", None) or "no file"
            raise LookupError(f"{module} has no {path!r} ({where})")
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def source_of(fn: Any) -> str | None:
    """Return the path of the file that defines `fn`, or None if it has no file.

    For a partial or a callable object, return the path of the main script.
    """
    try:
        return inspect.getsourcefile(inspect.unwrap(fn))
    except TypeError:  # neither a function nor a class: a partial, a callable object
        return conditions.main_file()


def seed_parameter(fn: Any) -> Literal["by name", "first", "no"]:
    """Return whether `fn` takes the seed, and how.

    Raises:
        TypeError: `fn` is not callable, or requires arguments other than the seed.
    """
    if not callable(fn):
        raise TypeError(f"expected a function, got {fn!r} ({type(fn).__name__})")
    try:
        signature = inspect.signature(fn)
    except ValueError:  # a builtin without a signature
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
        raise TypeError(f"{name} must be callable as fn(seed) or fn(): {error}") from None
    return "no"


def digest_of(fn: Any) -> str | None:
    """Return a digest of the code and the defaults of `fn`.

    Return None if `fn` has no code, as a callable object. Of a default that is neither a
    number, a string, a function nor a collection of these, the digest has the type alone.
    """
    if getattr(fn, "__code__", None) is None:
        return None
    return hashlib.sha256(_spelled(fn).encode()).hexdigest()[:16]


def _spelled(value: Any) -> str:
    """Return a text of a value that is the same in each process."""
    if isinstance(value, types.FunctionType):
        defaults = (value.__defaults__, value.__kwdefaults__)
        return _spelled((value.__code__, *defaults) if any(defaults) else value.__code__)
    if isinstance(value, types.CodeType):
        inner = [_spelled(constant) for constant in value.co_consts]
        return repr((value.co_code, value.co_names, value.co_varnames, inner))
    if isinstance(value, (set, frozenset)):  # their order follows the hash seed
        return f"{{{', '.join(sorted(map(_spelled, value)))}}}"
    if isinstance(value, dict):
        return _spelled([*value.items()])
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_spelled, value))})"
    is_plain = isinstance(value, (int, float, complex, str, bytes, type(None), type(...)))
    return repr(value) if is_plain else type(value).__qualname__  # its repr may have an address
