"""The proof notices a formula that is wrong, and does not refuse one that is right.

A tap that is shifted, dropped or rescaled has the effect of another input there: so the right
formula of such an input stands for the wrong one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from calls import CALLS, in_dtype
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_formulas import OPERATIONS, drawn, native, replaced

from seedscope.replacements.agreement import tensors

FEW, MANY = 4, 10_000


def shift(values: torch.Tensor) -> torch.Tensor:
    """Move the largest element to the place of the next."""
    moved = values.clone().flatten()
    place = moved.abs().argmax()
    moved[place - 1] += moved[place]
    moved[place] = 0
    return moved.view(values.shape)


def drop(values: torch.Tensor) -> torch.Tensor:
    return multiply_the_largest(values, 0)


def rescale(values: torch.Tensor) -> torch.Tensor:
    return multiply_the_largest(values, 1.1)


def multiply_the_largest(values: torch.Tensor, factor: float) -> torch.Tensor:
    changed = values.clone().flatten()
    changed[changed.abs().argmax()] *= factor
    return changed.view(values.shape)


@pytest.mark.parametrize("fault", [shift, drop, rescale])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: one.operation[6:])
@settings(max_examples=FEW, deadline=None, suppress_health_check=[*HealthCheck], derandomize=True)
@given(data=st.data())
def test_a_wrong_tap_is_noticed(
    one: Any, dtype: torch.dtype, fault: Callable[[torch.Tensor], torch.Tensor], data: Any
) -> None:
    if "ctc" in one.operation and dtype != torch.float32:
        pytest.skip("torch has no CTC loss in 16 bits")
    args = in_dtype(drawn(one, data), dtype)
    right = args[one.carriers[0]]
    assume(right.numel() > 1)
    wrong = list(args)
    wrong[one.carriers[0]] = fault(right)
    results = [replaced(one, each) for each in (args, wrong)]
    firsts = [tensors(each)[0] for each in results]
    changes = [(b - a).abs().max() / a.abs().max() for a, b in [firsts] if a.numel()]
    # An element that is cropped or ignored has no effect, and one of many has little.
    assume(changes and changes[0] > 0.01 + 4 * torch.finfo(dtype).eps)
    theirs = native(one, in_dtype(args, torch.float32))
    assert not one.agrees(results[1], theirs, *args)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: one.operation[6:])
@settings(
    max_examples=MANY // len(OPERATIONS) // 2 + 1,
    deadline=None,
    suppress_health_check=[*HealthCheck],
)
@given(data=st.data())
def test_ten_thousand_right_results_are_not_refused(
    one: Any, dtype: torch.dtype, data: Any
) -> None:
    if "ctc" in one.operation and dtype != torch.float32:
        pytest.skip("torch has no CTC loss in 16 bits")
    args = in_dtype(drawn(one, data), dtype)
    theirs = native(one, in_dtype(args, torch.float32))
    assert one.agrees(replaced(one, args), theirs, *args)


def test_each_operation_is_attacked():
    assert {one.operation for one in OPERATIONS} <= CALLS.keys()
