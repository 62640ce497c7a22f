"""The records of a run log: a line as JSON, checked field by field.

A log can be damaged, and it can come from anyone. What is read here is used later without
checks: sorted, printed, compared, replayed. So each field has a known kind and bounds.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from .run import Run
from .values import decode

LONGEST_LINE = 64 * 2**20  # bytes
_DEEPEST = 256  # JSON in JSON; the notes that can be written have less

# As json.dumps and `jq -c` write them. Other spacing is read too, but not as fast.
_BEGIN, _END = b'{"event":"begin","id":"', b'{"event":"end","id":"'
_COMPLETE = b'"$complete":true}'

_NONE = type(None)
_TEXT, _DICT, _LIST = (str,), (dict,), (list,)
_TEXT_OR_NONE, _INT_OR_NONE = (str, _NONE), (int, _NONE)

# Each field with its types, and a value for a line without it. None is of a wrong type for a
# field that each line has.
_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    **dict.fromkeys(("id", "began"), (_TEXT, None)),
    "seed": ((int,), None),
    **dict.fromkeys(("process", "folder"), (_TEXT, "")),
    **dict.fromkeys(("settings", "options", "notes", "versions", "reseeded"), (_DICT, {})),
    "replaced": (_DICT, {}),
    **dict.fromkeys(("command", "devices"), (_LIST, [])),
    **dict.fromkeys(("outcome", "script", "script_sha256", "replays"), (_TEXT_OR_NONE, None)),
    **dict.fromkeys(("function", "sweep", "error"), (_TEXT_OR_NONE, None)),
    **dict.fromkeys(("rank", "ordinal", "threads", "text_hash"), (_INT_OR_NONE, None)),
    "duration": ((float, int, _NONE), None),
    "git": ((dict, _NONE), None),
    "is_child": ((bool,), False),
}
_DEFAULTS = [default for _, default in _FIELDS.values()]

_only_texts = frozenset(_TEXT).issuperset
_only_texts_or_none = frozenset(_TEXT_OR_NONE).issuperset
_only_ints_or_none = frozenset(_INT_OR_NONE).issuperset
_is_id = re.compile("[0-9a-f]{12}").fullmatch


def _is_date(text: str) -> bool:
    try:
        # The first and the last year do not exist in every time zone.
        return 1 < datetime.fromisoformat(text).year < 9999
    except ValueError:
        return False


def _is_git(value: dict[str, Any]) -> bool:
    return type(value.get("commit")) is str and type(value.get("dirty")) in (bool, _NONE)


def _has_texts(values: list[Any]) -> bool:
    return _only_texts(map(type, values))


# What else holds for a field that has the right type, unless it is None or empty.
_CHECKS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("process", "replays"), _is_id),
    **dict.fromkeys(("command", "devices"), _has_texts),
    "versions": lambda value: _only_texts_or_none(map(type, value.values())),
    "reseeded": lambda value: _only_ints_or_none(map(type, value.values())),
    "replaced": lambda value: _has_texts([*value.values()]),
    "git": _is_git,
    "threads": lambda value: 0 < value < 2**16,
}

# A field of a later version is kept, unless it would hide a method of a run.
_METHODS = frozenset(dir(Run)) - Run.__annotations__.keys()


def ended(line: bytes) -> Run | None:
    """Return the run if the line is of its end, or None.

    Raises:
        ValueError: the line is not a sound record; the message says why.
    """
    if line.startswith(_BEGIN) and line.endswith(_COMPLETE):
        return None
    record = _record(line)
    return _run(record) if record["event"] == "end" else None


def begun(line: bytes) -> tuple[str, Run | None]:
    """Return the id in a line, and the run if the line is of its begin.

    Raises:
        ValueError: the line is not a sound record; the message says why.
    """
    if line.startswith(_END) and line.endswith(_COMPLETE):
        start = len(_END)
        return line[start : line.index(b'"', start)].decode(errors="replace"), None
    record = _record(line)
    return record["id"], _run(record) if record["event"] == "begin" else None


def _record(line: bytes) -> dict[str, Any]:
    """Return the record in a line, with all fields checked but the notes."""
    record = _json(line)
    if type(record) is not dict or record.get("$complete") is not True:
        raise ValueError("is not a run record")
    if record.get("event") not in ("begin", "end"):
        raise ValueError("is not a run record")
    if line.count(b"[") + line.count(b"{") > _DEEPEST:
        _check_depth(record)
    if wrong := _wrong_field(record):
        found = reprlib.repr(record[wrong]) if wrong in record else "missing"
        raise ValueError(f"is damaged ({wrong} is {found})")
    return record


def _wrong_field(record: dict[str, Any]) -> str | None:
    """Return the name of a field that has no value of its kind, or None."""
    get = record.get
    if wrong := _wrong_type(tuple(map(type, map(get, _FIELDS, _DEFAULTS)))):
        return wrong
    if not _is_id(record["id"]):
        return "id"
    if not 0 <= record["seed"] < 2**64:
        return "seed"
    if not _is_date(record["began"]):
        return "began"
    if not 0 <= (get("duration") or 0) < 1e12:
        return "duration"
    if record["event"] == "end" and get("outcome") is None:
        return "outcome"
    for name, check in _CHECKS.items():
        if (value := get(name)) and not check(value):
            return name
    return None


@lru_cache  # the lines of a log have the same types
def _wrong_type(types: tuple[type, ...]) -> str | None:
    found = zip(_FIELDS.items(), types, strict=True)
    return next((name for (name, (kinds, _)), kind in found if kind not in kinds), None)


def _run(record: dict[str, Any]) -> Run:
    if not _METHODS.isdisjoint(record):
        record = {name: value for name, value in record.items() if name not in _METHODS}
    notes = record.get("notes")
    if notes:
        for name, value in notes.items():
            try:
                if name.startswith("$"):
                    raise ValueError("no note has such a name")
                notes[name] = decode(value)
            except ValueError as error:
                raise ValueError(f"is damaged (note {name[:40]!r}: {error})") from error
    return Run(**record)


def _json(line: bytes) -> Any:
    text = ""
    try:
        text = line.decode().strip()
        record, end = _to_python(text)
        if end != len(text):
            raise json.JSONDecodeError("more than one value", text, end)
    except (ValueError, RecursionError) as error:
        raise ValueError(_reason(line.strip(), len(text), error)) from error
    return record


def _reason(line: bytes, length: int, error: Exception) -> str:
    """Say whether a line that is not JSON is torn, damaged or of another file."""
    if not line.startswith(b"{"):
        return "is not a run record"
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    if reason.startswith("Exceeds the limit"):  # of Python, whose advice is for its own users
        reason = f"a number has more than {sys.get_int_max_str_digits()} digits"
    runs_out = False
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg} at column {error.pos + 1}"
        runs_out = error.pos >= length or error.msg.startswith("Unterminated")
    if runs_out or not line.endswith(b"}"):
        return "is torn: a killed process left it, or a process is writing it now"
    return f"is damaged ({reason})"


def _check_depth(record: dict[str, Any]) -> None:
    level: list[Any] = [record]
    for _ in range(_DEEPEST):
        inside = [x.values() if type(x) is dict else x for x in level]
        level = [item for items in inside for item in items if type(item) in (dict, list)]
        if not level:
            return
    raise ValueError("is damaged (nested too deeply)")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


# JSON has no NaN and no infinity; what is written back as JSON must have none either.
_to_python = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant).raw_decode
