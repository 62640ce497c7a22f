"""Two states are the same if their types and their contents are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seedscope.sources.base import same_state

NAN = float("nan")

SAME = [
    *[(5, 5), ("a", "a"), (None, None), (NAN, float("nan")), (b"a", b"a"), ((), ())],
    *[([1, [2]], [1, [2]]), ({"a": [1]}, {"a": [1]}), ((1, NAN), (1, NAN))],
    *[(np.array([1, 2]), np.array([1, 2])), (np.array([NAN]), np.array([NAN]))],
    (np.array(["a", None], dtype=object), np.array(["a", None], dtype=object)),
    *[(torch.ones(2), torch.ones(2)), (torch.tensor([NAN, 1]), torch.tensor([NAN, 1]))],
    (torch.tensor([complex(NAN, 1)]), torch.tensor([complex(NAN, 1)])),
]
DIFFERENT = [
    *[(5, 6), (1, True), (1, 1.0), ("a", b"a"), (None, 0), (NAN, 1.0)],
    *[([1], (1,)), ([1], [1, 1]), ([1, 1], [1]), ((1, 2), (1, 3)), ([], [[]])],
    *[({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 1}), ({}, [])],
    *[(np.array([1, 2]), np.array([1, 3])), (np.array([1, 2]), np.array([[1, 2]]))],
    *[(np.array([1, 2]), np.array([1, 2], dtype=kind)) for kind in (np.int32, np.uint64)],
    (np.array(["a", 1], dtype=object), np.array(["a", 2], dtype=object)),
    *[(np.array([1]), [1]), (np.array([1]), torch.tensor([1]))],
    *[(torch.ones(2), torch.zeros(2)), (torch.ones(2), torch.ones(1, 2))],
    *[(torch.ones(2), torch.ones(2, dtype=torch.float64)), (torch.ones(1), 1.0)],
    *[(torch.tensor([NAN, 1]), torch.tensor([NAN, 2])), (torch.ones(2), torch.tensor([1, NAN]))],
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_equal_contents_are_the_same_state(a, b):
    assert same_state(a, b)
    assert same_state([{"a": a}], [{"a": b}])


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_other_contents_types_and_lengths_differ(a, b):
    assert not same_state(a, b)
    assert not same_state(b, a)
    assert not same_state([{"a": a}], [{"a": b}])
