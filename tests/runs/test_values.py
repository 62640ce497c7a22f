"""Values that the log keeps: they come back with their type and every bit."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedscope import seeded
from seedscope.runs.values import decode, encode


def same(a, b) -> bool:
    """Equal in type and in every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same([*a.items()], [*b.items()])
    if isinstance(a, torch.Tensor):
        bits = (x.contiguous().reshape(-1).view(torch.uint8).tolist() for x in (a, b))
        return a.dtype == b.dtype and a.shape == b.shape and next(bits) == next(bits)
    if isinstance(a, (np.generic, np.ndarray)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


def through_json(value):
    return decode(json.loads(json.dumps(encode(value, "x"), allow_nan=False)))


NAN_WITH_BITS = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.just(NAN_WITH_BITS),
    st.complex_numbers(),
    st.text(),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.float16, st.floats(width=16)),
    st.builds(np.float64, st.floats()),
    st.builds(np.int8, st.integers(-128, 127)),
    st.builds(np.uint64, st.integers(0, 2**64 - 1)),
    st.builds(np.bool_, st.booleans()),
    st.builds(lambda x: torch.tensor(x, dtype=torch.bfloat16), st.floats(width=32)),
    st.builds(lambda x: torch.tensor(x, dtype=torch.float64), st.floats()),
    st.builds(torch.tensor, st.integers(-(2**63), 2**63 - 1)),
)
KEYS = st.one_of(st.text(), st.integers(), st.sampled_from(["$float", "$tuple", "$"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_comes_back_with_its_type_and_every_bit(value):
    assert same(through_json(value), value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.uint16).reshape(2, 3),
        np.array([math.nan, -0.0, 1e-320]),
        np.zeros((0, 3), dtype=np.int32),
        np.array(3.5),
        torch.tensor([[1.5, math.inf]]),
        torch.tensor(True),
        torch.zeros(0, 3),
        torch.tensor(1 + 2j),
        torch.zeros(2, requires_grad=True),
    ],
    ids=repr,
)
def test_arrays_and_tensors_come_back(value):
    expected = value.detach() if isinstance(value, torch.Tensor) else value
    assert same(through_json(value), expected)


class Named(np.ndarray):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"x",
        np.datetime64("2026-01-01"),
        open,
        10**5000,
        np.ma.array([1.0, 2.0], mask=[0, 1]),
        np.zeros(2).view(Named),
        np.zeros(2, dtype=">f4"),
        torch.zeros(2).to_sparse(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_kept_is_refused_with_its_name(log, value):
    with seeded(1, log=log) as scope:
        scope.note(good=1)
        with pytest.raises(TypeError, match="the log cannot keep bad="):
            scope.note(fine=2, bad=value)
    assert [run.notes for run in log] == [{"good": 1}]


def test_a_note_whose_name_could_end_a_line_is_refused(log):
    with seeded(1, log=log) as scope, pytest.raises(TypeError, match=r"must not begin with \$"):
        scope.note(**{"$complete": True})


def test_a_note_keeps_the_value_of_its_moment(log):
    history = [1]
    with seeded(1, log=log) as scope:
        scope.note(history=history)
        history.append(2)
    assert [run.notes for run in log] == [{"history": [1]}]


@pytest.mark.parametrize(
    "text", ["3ff0000000000000", "7ff0000000000000", "7ff8000000000000", "x", 5, None]
)
def test_a_saved_float_is_a_nan_of_its_own_bits_or_one_of_three_words(text):
    """A number, an infinity and the usual NaN have another spelling."""
    with pytest.raises(ValueError, match="is no float"):
        decode({"$float": text})
