"""Damage for saved states and logs: the same seed gives the same damage."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch

# What a damaged or hostile file may have in any place.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**32, 2**63, 2**64, -(2**64), 10**30, 5e8),
    *(0.5, -0.0, float("nan"), float("inf"), 1e308),
    *("", "0", "x" * 1000, "\0", "\ud800", "\x1b[2J", "__class__", "builtins", "PCG64"),
    *([], {}, [[]], {"": 0}, [0] * 624, [0] * 10_000, [None], [[[[[[]]]]]], {"a": {"b": {}}}),
)
ODD_TENSORS: tuple[Any, ...] = (
    *(torch.empty(0), torch.zeros(5056, dtype=torch.uint8), torch.zeros(5, dtype=torch.uint8)),
    *(torch.tensor(3), torch.full((16,), float("nan")), torch.zeros(2, 2).to_sparse()),
)

ODD_BYTES = (
    *(b"", b"\0", b"[", b"]", b"{", b"}", b'"', b"\\", b"9" * 30, b"-", b"1e999", b"NaN", b"null"),
    *(b"true", b"\xff", b"\\ud800", b"\x1b[31m", b"[" * 2000, b'{"$numpy":', b" "),
)


def damaged(value: Any, chance: random.Random, odd: tuple[Any, ...] = ODD_VALUES) -> Any:
    """Return a copy of `value` with one to three places damaged."""
    value = copy.deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        value = _damaged_once(value, chance, odd)
    return value


def _damaged_once(value: Any, chance: random.Random, odd: tuple[Any, ...]) -> Any:
    if isinstance(value, (list, dict)) and value and chance.random() < 0.9:
        key = chance.choice([*value] if isinstance(value, dict) else range(len(value)))
        how = chance.random()
        if how < 0.1:
            del value[key]
        elif how < 0.15 and isinstance(value, list):
            value.insert(key, copy.deepcopy(chance.choice(odd)))
        elif how < 0.15:
            value[chance.choice(["", "new", "$tuple", "__class__", 5])] = copy.deepcopy(
                chance.choice(odd)
            )
        else:
            value[key] = _damaged_once(value[key], chance, odd)
        return value
    if _is_vector(value) and chance.random() < 0.7:
        at = chance.randrange(value.numel())
        value.view(-1)[at] = chance.choice([0, 1, 255])
        return value[: chance.randrange(value.numel())] if chance.random() < 0.2 else value
    if type(value) is int and chance.random() < 0.4:
        return value + chance.choice([-1, 1, 2**32, -(2**32)])
    return copy.deepcopy(chance.choice(odd))


def _is_vector(value: Any) -> bool:
    is_filled = isinstance(value, torch.Tensor) and value.ndim == 1 and value.numel() > 0
    return is_filled and value.layout is torch.strided


def damaged_bytes(text: bytes, chance: random.Random) -> bytes:
    """Return `text` with one to three bytes or spans damaged."""
    for _ in range(chance.randint(1, 3)):
        at, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        end = min(end, at + 8)
        new = chance.choice(ODD_BYTES)
        text = text[:at] + new + text[chance.choice([at, end]) :]
    return text
