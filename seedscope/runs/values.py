"""JSON for notes: a decoded note has its original type and all of its bits."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import torch

_MOST_LEVELS = 64  # values in values
_INT_BOUND = 10**4000  # Python converts no longer integers to text


def encode(value: Any, name: str, level: int = 0) -> Any:
    """Return `value` in JSON's types; `decode` restores its type and bits.

    Args:
        value: the value.
        name: the name of the note.
        level: how many other values `value` lies in.

    Raises:
        TypeError: the log cannot keep the value; the message contains `name`.
    """
    if level > _MOST_LEVELS:
        raise TypeError(
            f"the log cannot keep {name}: it keeps values inside of values up to "
            f"{_MOST_LEVELS} levels; flatten the value, or convert it with str(...)"
        )
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int and -_INT_BOUND < value < _INT_BOUND:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": _spell(value)}
    if isinstance(value, complex) and type(value) is complex:
        return {"$complex": [encode(value.real, name), encode(value.imag, name)]}
    inside = level + 1
    if type(value) in (list, tuple):
        items = [encode(item, name, inside) for item in value]
        return items if type(value) is list else {"$tuple": items}
    if type(value) is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item, name, inside) for key, item in value.items()}
        pairs = value.items()
        return {"$dict": [[encode(k, name, inside), encode(v, name, inside)] for k, v in pairs]}
    if (array := _encode_array(value, name, level)) is not None:
        return array
    raise TypeError(
        f"the log cannot keep {name}={_brief(value)} ({type(value).__name__}): it keeps numbers, "
        "strings, lists, tuples, dicts, NumPy arrays and torch tensors of numbers; "
        "convert the value, for instance with str(...)"
    )


def _encode_array(value: Any, name: str, level: int) -> Any:
    """Return a NumPy array or number or a torch tensor in JSON's types, or None."""
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        dtype = str(value.dtype).removeprefix("torch.")
        if value.layout is torch.strided and not value.is_quantized and dtype in _TORCH_TYPES:
            return _tagged("$torch", dtype, value, name, level)
    is_numpy = type(value) is np.ndarray or isinstance(value, np.generic)
    if is_numpy and value.dtype.isnative and value.dtype.name in _NUMPY_TYPES:
        return _tagged("$numpy", value.dtype.name, value, name, level)
    return None


_COMMON_TYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
_NUMPY_TYPES = (*_COMMON_TYPES, "uint16", "uint32", "uint64")
_TORCH_TYPES = (*_COMMON_TYPES, "bfloat16")
_ARRAY_TYPES = {"$numpy": _NUMPY_TYPES, "$torch": _TORCH_TYPES}


def _tagged(tag: str, dtype: str, array: Any, name: str, level: int) -> Any:
    # A Python float holds every bit of a narrower float. NumPy distinguishes a scalar from an
    # array without dimensions: only the array has a shape here.
    shape = {} if isinstance(array, np.generic) else {"shape": list(array.shape)}
    return {tag: dtype, "value": encode(array.tolist(), name, level), **shape}


def _brief(value: Any) -> str:
    try:
        return repr(value)[:200]
    except Exception:  # an integer of too many digits, or a repr that raises
        return "..."


def _spell(value: float) -> str:
    """Return a non-finite float as text; an unusual NaN as 16 hexadecimal digits of bits."""
    bits = struct.pack(">d", value).hex()
    return bits if value != value and bits != struct.pack(">d", math.nan).hex() else repr(value)


def decode(value: Any, level: int = 0) -> Any:
    """Return the value from which `encode` made `value`, in time proportional to its size.

    Raises:
        ValueError: `encode` writes no such value.
    """
    kind = type(value)
    if level > _MOST_LEVELS:
        raise ValueError("it is nested too deeply")
    if kind is list:
        return [decode(item, level + 1) for item in value]
    if kind is dict:
        tags = [key for key in value if key.startswith("$")]
        if tags:
            return _decode_tagged(value, tags[0], level)
        return {key: decode(item, level + 1) for key, item in value.items()}
    if kind is int and not -_INT_BOUND < value < _INT_BOUND:
        raise ValueError("it is an integer of more than 4000 digits")
    return value


def _decode_tagged(value: dict[str, Any], tag: str, level: int) -> Any:
    inside = value[tag]
    if tag in _ARRAY_TYPES:
        if type(inside) is not str or inside not in _ARRAY_TYPES[tag]:
            raise ValueError(f"the log keeps no arrays of type {inside!r:.50}")
        return _decode_array(value, tag, level)
    if len(value) > 1 or tag not in ("$float", "$complex", "$tuple", "$dict"):
        raise ValueError(f"it has the unknown form {tag!r:.50}")
    if tag == "$float":
        return _decode_float(inside)
    if type(inside) is not list:
        raise ValueError(f"{tag} has no list")
    if tag == "$tuple":
        return tuple([decode(item, level + 1) for item in inside])
    if tag == "$dict":
        return _decode_dict(inside, level + 1)
    parts = [decode(part, level) for part in inside]
    if [*map(type, parts)] != [float, float]:
        raise ValueError("a complex number has two floats")
    return complex(*parts)


def _decode_float(text: Any) -> float:
    if text in ("nan", "inf", "-inf"):
        return float(text)
    if type(text) is str and re.fullmatch("[0-9a-f]{16}", text):
        value: float = struct.unpack(">d", bytes.fromhex(text))[0]
        if value != value and _spell(value) == text:
            return value
    raise ValueError(f"{text!r:.50} is no float")


def _decode_dict(pairs: list[Any], level: int) -> dict[Any, Any]:
    if not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise ValueError("a dict has pairs")
    keys = [decode(key, level) for key, _ in pairs]
    try:
        # Keys of one hash take the square of their number in time.
        most = max(Counter(map(hash, keys)).values(), default=0)
    except TypeError:
        raise ValueError("a key of a dict is a list, a dict or an array") from None
    found = {} if most > 100 else dict(zip(keys, (decode(v, level) for _, v in pairs), strict=True))
    if len(found) != len(pairs):
        raise ValueError("keys of a dict are equal")
    return found


def _decode_array(value: dict[str, Any], tag: str, level: int) -> Any:
    dtype, shape = value[tag], value.get("shape", [])
    is_scalar = tag == "$numpy" and "shape" not in value
    is_shape = type(shape) is list and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    if value.keys() != ({tag, "value"} if is_scalar else {tag, "value", "shape"}):
        raise ValueError(f"{tag} has other fields")
    if not is_shape or level + len(shape) > _MOST_LEVELS:
        raise ValueError("it is no shape")
    leaves = [decode(leaf, level) for leaf in _flat(value["value"], shape)]
    _check_leaves(leaves, dtype)
    try:
        with np.errstate(all="ignore"):
            if tag == "$torch":
                kind = getattr(torch, dtype)
                array: Any = torch.tensor(leaves, dtype=kind, device="cpu").reshape(shape)
            else:
                array = np.array(leaves, dtype=dtype).reshape(shape)
    except (OverflowError, RuntimeError, TypeError) as error:
        raise ValueError(f"it is no array: {error}") from error
    kept = array.reshape(-1).tolist()
    if kept != leaves and not all(
        a == b or (a != a and b != b) for a, b in zip(kept, leaves, strict=True)
    ):
        raise ValueError(f"a value is no {dtype}")
    return array[()] if is_scalar else array


def _flat(value: Any, shape: list[int]) -> list[Any]:
    """Return the values in nested lists that have this shape."""
    level = [value]
    for size in shape:
        if not all(type(items) is list and len(items) == size for items in level):
            raise ValueError("it has another shape than its values")
        level = [*chain.from_iterable(level)]
    return level


_LEAVES: dict[str, set[type]] = {
    "bool": {bool},
    "int": {int},
    "uint": {int},
    "complex": {complex},
}


def _check_leaves(leaves: list[Any], dtype: str) -> None:
    kind = dtype.rstrip("0123456789")
    # Other tools may write 1 for 1.0.
    if not {*map(type, leaves)} <= _LEAVES.get(kind, {float, int}):
        raise ValueError(f"a value is no {dtype}")
    if kind in ("int", "uint") and leaves:
        bounds = np.iinfo(dtype)
        if min(leaves) < bounds.min or max(leaves) > bounds.max:
            raise ValueError(f"a value is no {dtype}")
