"""How much two results of an operation differ."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .contents import parts

_MANY = 2**24
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Amount(NamedTuple):
    """How much the first of the outputs that differ does differ.

    Attributes:
        output: the number of the output.
        largest: the largest absolute difference; NaN if a NaN is opposite a number.
        ulp: the largest difference in units in the last place; None for integers.
        differing: the number of elements that differ in a bit.
        elements: the number of elements.
    """

    output: int
    largest: float
    ulp: int | None
    differing: int
    elements: int

    def __str__(self) -> str:
        # Numbers of other signs or sizes are so far apart that the steps between say nothing.
        ulp = "" if self.ulp is None or self.ulp >= _MANY else f" (ulp {self.ulp:,})"
        return f"{self.largest:.2g}{ulp}, {self.differing:,} of {self.elements:,} elements"


def amount(one: list[Any], other: list[Any]) -> Amount | None:
    """Return how much two lists of outputs differ; None if no pair of equal shapes differs."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            for x, y in zip(parts(a), parts(b), strict=False):
                found = _of(number, x.cpu(), y.cpu()) if x.shape == y.shape else None
                if found is not None and found.differing:
                    return found
        elif isinstance(a, (int, float)) and isinstance(b, (int, float)) and a != b:
            return Amount(number, abs(a - b), None, 1, 1)
    return None


def _of(number: int, a: Tensor, b: Tensor) -> Amount | None:
    if a.dtype != b.dtype or not a.numel():
        return None
    a, b = (x.resolve_conj().resolve_neg().contiguous() for x in (a, b))
    if a.is_complex():
        a, b = torch.view_as_real(a).contiguous(), torch.view_as_real(b).contiguous()
    bits = [x.reshape(-1).view(_INTEGERS[x.element_size()]) for x in (a, b)]
    unequal = bits[0] != bits[1]
    gap = (a.reshape(-1).double() - b.reshape(-1).double()).abs()[unequal]
    largest = float(gap.max()) if len(gap) else 0.0
    ulp = _ulp(*(x[unequal] for x in bits)) if a.is_floating_point() and len(gap) else None
    return Amount(number, largest, ulp, int(unequal.sum()), a.numel())


def _ulp(one: Tensor, other: Tensor) -> int:
    """Return the largest number of steps between floating-point numbers of these bits.

    A number's bits are its sign and its size; the size counts the steps from zero.
    """
    size = torch.iinfo(one.dtype).max
    steps = [torch.where(x < 0, -(x & size).long(), x.long()) for x in (one, other)]
    # In Python: two numbers of 64 bits may be further apart than 64 bits can say.
    far = (steps[0].double() - steps[1].double()).abs().argmax()
    return abs(int(steps[0][far]) - int(steps[1][far]))
