"""Short forms of values for messages."""

from __future__ import annotations

import reprlib
from typing import Any


class _Short(reprlib.Repr):
    """Shows a few items of what was read from a file, which may be large or deep."""

    def repr_int(self, number: int, level: int) -> str:
        # Python refuses to write a number of more than 4300 digits.
        bits = number.bit_length()
        return repr(number) if bits <= 128 else f"<integer of {bits} bits>"

    def repr_Tensor(self, tensor: Any, level: int) -> str:
        if tensor.ndim == 0 and tensor.device.type == "cpu":
            return f"tensor({tensor.item()!r})"
        # The tensor's own form has its contents, and loads more of torch.
        return f"<tensor of {tensor.dtype}, shape {[*tensor.shape]}>"


_short = _Short()
_short.maxstring = _short.maxother = 60


def shown(value: Any) -> str:
    """Return a form of `value` of some tens of characters."""
    return _short.repr(value)
