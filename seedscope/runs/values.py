"""JSON for notes: a decoded note has its original type and all of its bits."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import torch


def encode(value: Any, name: str) -> Any:
    """Return `value` in JSON's types; `decode` restores its type and bits.

    Raises:
        TypeError: the log cannot keep the value; the message contains `name`.
    """
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int and abs(value) < 10**4000:  # Python converts no longer ones to text
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": _spell(value)}
    if isinstance(value, complex) and type(value) is complex:
        return {"$complex": [encode(value.real, name), encode(value.imag, name)]}
    if type(value) in (list, tuple):
        items = [encode(item, name) for item in value]
        return items if type(value) is list else {"$tuple": items}
    if type(value) is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item, name) for key, item in value.items()}
        return {"$dict": [[encode(k, name), encode(v, name)] for k, v in value.items()]}
    if (array := _encode_array(value, name)) is not None:
        return array
    raise TypeError(
        f"the log cannot keep {name}={_brief(value)} ({type(value).__name__}): it keeps numbers, "
        "strings, lists, tuples, dicts, NumPy arrays and torch tensors of numbers; "
        "convert the value, for instance with str(...)"
    )


def _encode_array(value: Any, name: str) -> Any:
    """Return a NumPy array or number or a torch tensor in JSON's types, or None."""
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        dtype = str(value.dtype).removeprefix("torch.")
        if value.layout is torch.strided and not value.is_quantized and dtype in _TORCH_TYPES:
            return _tagged("$torch", dtype, value, name)
    is_numpy = type(value) is np.ndarray or isinstance(value, np.generic)
    if is_numpy and value.dtype.isnative and value.dtype.name in _NUMPY_TYPES:
        return _tagged("$numpy", value.dtype.name, value, name)
    return None


_COMMON_TYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
_NUMPY_TYPES = (*_COMMON_TYPES, "uint16", "uint32", "uint64")
_TORCH_TYPES = (*_COMMON_TYPES, "bfloat16")


def _tagged(tag: str, dtype: str, array: Any, name: str) -> Any:
    # A Python float holds every bit of a narrower float. NumPy distinguishes a scalar from an
    # array without dimensions: only the array has a shape here.
    shape = {} if isinstance(array, np.generic) else {"shape": list(array.shape)}
    return {tag: dtype, "value": encode(array.tolist(), name), **shape}


def _brief(value: Any) -> str:
    try:
        return repr(value)[:200]
    except Exception:  # an integer of too many digits, or a repr that raises
        return "..."


def _spell(value: float) -> str:
    """Return a non-finite float as text; an unusual NaN as 16 hexadecimal digits of bits."""
    bits = struct.pack(">d", value).hex()
    return bits if value != value and bits != struct.pack(">d", math.nan).hex() else repr(value)


def decode(value: Any) -> Any:
    """Return the value from which `encode` made `value`."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: decode(item) for key, item in value.items()}
    inside = value[tag]
    if tag == "$float":
        is_bits = len(inside) == 16
        return struct.unpack(">d", bytes.fromhex(inside))[0] if is_bits else float(inside)
    if tag == "$complex":
        return complex(*map(decode, inside))
    if tag == "$tuple":
        return tuple(map(decode, inside))
    if tag == "$dict":
        return {decode(key): decode(item) for key, item in inside}
    plain, shape = decode(value["value"]), value.get("shape", ())
    if tag == "$torch":
        return torch.tensor(plain, dtype=getattr(torch, inside), device="cpu").reshape(shape)
    array = np.array(plain, dtype=inside)
    return array.reshape(shape) if "shape" in value else array[()]
