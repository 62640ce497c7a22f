"""Precision of matrix products and convolutions in float32, in both of torch's APIs.

Since torch 2.9 each backend and operation has its own `fp32_precision`. The value of an
operation may inherit from its backend, and the value of a backend from the general one. The
older `set_float32_matmul_precision` and `allow_tf32` still exist, and reading *them* raises
if the two APIs disagree. So the new values are read for each operation. The old values are
read where that is safe, and inferred where the read raises.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..support.torch_internals import cublas_reader, read_precision, write_precision
from .allowed import is_flag, is_open_flag, one_of
from .base import Entangled, Setting

# The precisions of each backend. "none" inherits, at last from torch's own choice.
_PRECISIONS = {
    "generic": ("none", "ieee", "tf32", "bf16"),
    "cuda": ("none", "ieee", "tf32"),
    "mkldnn": ("none", "ieee", "tf32", "bf16"),
}

# Parents before children, so that a child is compared after its parent is restored.
_OPERATIONS = [
    ("generic", "all"),
    ("cuda", "all"),
    ("cuda", "matmul"),
    ("cuda", "conv"),
    ("cuda", "rnn"),
    ("mkldnn", "all"),
    ("mkldnn", "matmul"),
    ("mkldnn", "conv"),
    ("mkldnn", "rnn"),
]

_cudnn_allow_tf32 = vars(type(torch.backends.cudnn))["allow_tf32"]


def _write_operation(backend: str, operation: str, value: str) -> None:
    # "none" first, so that an inherited value is inherited again.
    write_precision(backend, operation, "none")
    if read_precision(backend, operation) != value:
        write_precision(backend, operation, value)


def _unless_refused(read: Callable[[], Any]) -> Any:
    """Return what `read` returns, or None if torch refuses it because its two APIs disagree.

    torch then refuses a second time too. An error that comes once is that of a signal handler.
    """
    try:
        return read()
    except RuntimeError as error:
        try:
            read()
        except RuntimeError:
            return None
        raise error


def _read_matmul() -> str:
    """Return the precision last set by the old API: "highest", "high" or "medium"."""
    precision: str | None = _unless_refused(torch.get_float32_matmul_precision)
    if precision is not None:
        return precision
    # The two APIs disagree. The rules by which torch detects this determine the value:
    # https://github.com/pytorch/pytorch/blob/v2.9.0/aten/src/ATen/Context.cpp
    above_highest = _unless_refused(partial(getattr, torch.backends.cuda.matmul, "allow_tf32"))
    if above_highest is None:
        above_highest = read_precision("cuda", "matmul") != "tf32"
    if not above_highest:
        return "highest"
    return "high" if read_precision("mkldnn", "matmul") == "bf16" else "medium"


def _read_cudnn_tf32() -> bool | None:
    """Return the last value of `torch.backends.cudnn.allow_tf32`; None if it is unknown."""
    allowed = _unless_refused(_cudnn_allow_tf32.getter)
    if allowed is not None:
        return bool(allowed)
    # The flag disagrees with the new API, so it is the opposite of the new value. If
    # convolutions and recurrent networks differ, both values of the flag disagree.
    conv, rnn = read_precision("cuda", "conv"), read_precision("cuda", "rnn")
    return None if (conv == "tf32") != (rnn == "tf32") else bool(rnn != "tf32")


def _write_cudnn_tf32(value: bool | None) -> None:
    if value is not None:
        _cudnn_allow_tf32.setter(value)
        _inherit(("cuda", "conv"), ("cuda", "rnn"))


def _write_matmul(value: str) -> None:
    torch.set_float32_matmul_precision(value)
    _inherit(("cuda", "matmul"), ("mkldnn", "matmul"))


def _inherit(*operations: tuple[str, str]) -> None:
    """Undo the old API's writes to the new values, which are restored next."""
    for backend, operation in operations if write_precision else ():
        write_precision(backend, operation, "none")


def _cublas_flags() -> list[Setting]:
    settings = []
    for name in (
        "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
    ):
        read: Any = cublas_reader(name)
        is_pair = isinstance(read(), tuple)
        write = partial(_write_pair, name, is_pair)
        # One form for all versions of torch, so that another version can load a saved state.
        read_pair = read if is_pair else partial(_read_twice, read)
        settings.append(Setting(f"matmul.{name}", read_pair, write, _is_reduction))
    if read := cublas_reader("allow_fp16_accumulation"):
        write = partial(setattr, torch.backends.cuda.matmul, "allow_fp16_accumulation")
        settings.append(Setting("matmul.allow_fp16_accumulation", read, write, is_flag))
    return settings


def _is_reduction(value: Any) -> bool:
    """Return whether the value is a pair of flags: torch refuses (True, False)."""
    is_pair = type(value) is tuple and len(value) == 2 and all(map(is_flag, value))
    return is_pair and value != (True, False)


def _read_twice(read: Any) -> tuple[bool, bool]:
    value = read()
    return value, value


def _write_pair(name: str, takes_pair: bool, value: Any) -> None:
    setattr(torch.backends.cuda.matmul, name, tuple(value) if takes_pair else value[0])


SETTINGS: list[Setting] = [
    # The old API first: its writes change the new values as well, never the reverse.
    Entangled("matmul.precision", _read_matmul, _write_matmul, one_of("highest", "high", "medium")),
    Entangled("cudnn.allow_tf32", _read_cudnn_tf32, _write_cudnn_tf32, is_open_flag),
    *(
        Entangled(
            f"fp32_precision.{backend}.{operation}",
            partial(read_precision, backend, operation),
            partial(_write_operation, backend, operation),
            one_of(*_PRECISIONS[backend]),
        )
        for backend, operation in (_OPERATIONS if read_precision else ())
    ),
    *_cublas_flags(),
]


def settled(values: dict[str, Any]) -> dict[str, Any]:
    """Return the saved values as torch shows them once they are written.

    No torch has saved other ones, but a damaged state or another version may have them.
    """
    values = dict(values)
    if not read_precision:
        return values
    prefix = "fp32_precision"
    for backend, operation in _OPERATIONS:
        name = f"{prefix}.{backend}.{operation}"
        parent = ("generic", "all") if operation == "all" else (backend, "all")
        inherited = values[".".join((prefix, *parent))]
        if values[name] == "none" and inherited in _PRECISIONS[backend]:
            values[name] = inherited
    conv, rnn = (values[f"{prefix}.cuda.{operation}"] == "tf32" for operation in ("conv", "rnn"))
    if conv != rnn:
        values["cudnn.allow_tf32"] = None
    elif values["cudnn.allow_tf32"] is None:
        values["cudnn.allow_tf32"] = conv
    return values
