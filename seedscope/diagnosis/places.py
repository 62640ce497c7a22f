"""Where an operation was called: the line outside of torch, and the module around it."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

_LIBRARY = os.path.dirname(os.path.dirname(__file__)) + os.sep
_TORCH = os.path.dirname(torch.__file__) + os.sep
_STANDARD = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")})
_INSTALLED = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("purelib", "platlib")})

Place = tuple[CodeType, int]  # a code, and the offset of an instruction in it

_is_inner: dict[CodeType, bool] = {}


def is_inner(code: CodeType) -> bool:
    """Return whether code belongs to torch, to Python or to this package."""
    found = _is_inner.get(code)
    if found is None:
        file = code.co_filename
        is_standard = file.startswith(_STANDARD) and not file.startswith(_INSTALLED)
        found = file.startswith((_LIBRARY, _TORCH, "<frozen", "<__array")) or is_standard
        _is_inner[code] = found
    return found


def calling() -> FrameType | None:
    """Return the frame that called the caller of this; None in a thread of autograd."""
    frame = sys._getframe(1).f_back
    return None if frame is None else frame.f_back


def caller(frame: FrameType | None) -> Place | None:
    """Return the innermost place outside of torch, Python and this package."""
    while frame is not None:
        code = frame.f_code
        if not (_is_inner.get(code) or is_inner(code)):
            return code, frame.f_lasti
        frame = frame.f_back
    return None


def callers(frame: FrameType | None) -> list[Place]:
    """Return all such places, the innermost first."""
    found = []
    while frame is not None:
        if not is_inner(frame.f_code):
            found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return found


def owner(frame: FrameType | None) -> Any:
    """Return the module or the optimizer whose method runs, the innermost; else None."""
    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_varnames[0] == "self":
            thing = frame.f_locals.get("self")
            if isinstance(thing, (nn.Module, torch.optim.Optimizer)):
                return thing
        frame = frame.f_back
    return None


def line_of(place: Place) -> int:
    code, offset = place
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno


def is_installed(place: Place) -> bool:
    """Return whether a place is in an installed library."""
    return place[0].co_filename.startswith(_INSTALLED)


def shown(place: Place | None) -> str:
    """Return `file.py:12`, with the path from the working folder if the file is below it."""
    if place is None:
        return "(no Python code outside of torch)"
    path = place[0].co_filename
    for folder in (*_INSTALLED, os.getcwd()):
        if path.startswith(os.path.join(folder, "")):
            path = os.path.relpath(path, folder)
            break
    return f"{path}:{line_of(place)}"


def caller_text(stack: list[Place]) -> str:
    """Return the innermost line of a stack, and the user's own if that is in a library."""
    if not stack:
        return ""
    own = next((place for place in stack if not is_installed(place)), None)
    if own is None or own is stack[0]:
        return shown(stack[0])
    return f"{shown(stack[0])}, from {shown(own)}"


def source_of(place: Place | None) -> str:
    """Return the text of the line, or nothing."""
    return "" if place is None else linecache.getline(place[0].co_filename, line_of(place)).strip()
