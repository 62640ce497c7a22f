"""A block works and ends whatever state the user has set, and gives it back."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers import ROOT
from seedscope import SeededDataset, Stream, evaluating, seeded, snapshot

pytestmark = pytest.mark.usefixtures("ways")


def mersenne(position, word=0):
    key = np.zeros(624, np.uint32)
    key[0] = word
    return {"bit_generator": "MT19937", "state": {"key": key, "pos": position}}


def set_numpy(state, has_gauss=0, gauss=0.0):
    np.random.set_state({**state, "has_gauss": has_gauss, "gauss": gauss})


def set_pcg(inc):
    np.random.set_bit_generator(np.random.PCG64(0))
    state = np.random.get_state(legacy=False)
    np.random.set_state({**state, "state": {"state": 0, "inc": inc}})


def set_python(words, gauss):
    random.setstate((3, words, gauss))


# NumPy would draw zeros for ever, and a loop that rejects them would not end.
STATES = {
    **{f"zeros at {at}": lambda at=at: set_numpy(mersenne(at)) for at in (0, 5, 623, 624)},
    "zeros but for a bit": lambda: set_numpy(mersenne(624, 1)),
    **{f"position {at}": lambda at=at: set_numpy(mersenne(at, 5)) for at in (-1, 10**6, 2**31 - 1)},
    **{f"has_gauss {has}": lambda has=has: set_numpy(mersenne(3, 5), has) for has in (2, -1)},
    **{
        f"gauss {value}": lambda value=value: set_numpy(mersenne(3, 5), 1, value)
        for value in (float("nan"), float("inf"), -0.0)
    },
    **{f"increment {inc}": lambda inc=inc: set_pcg(inc) for inc in (0, 2)},
    "python zeros": lambda: set_python((*[0] * 624, 624), None),
    "python nan": lambda: set_python((*[5] * 624, 624), float("nan")),
    "python text": lambda: set_python((*[5] * 624, 624), "text"),
}


@pytest.fixture
def numpys_own():
    """NumPy's present generator, to put back after a test that sets another one."""
    outer, generator = snapshot(), np.random.get_bit_generator()
    yield
    np.random.set_bit_generator(generator)
    outer.restore()


def blocks():
    """Return what blocks of each kind draw."""
    with seeded(3) as scope:
        drawn = [random.gauss(0, 1), np.random.standard_normal(), torch.randn(1).item()]
        used = scope.used()
    with Stream(3):
        drawn.append(np.random.standard_normal())
    with evaluating(torch.nn.Identity(), seed=3):
        drawn.append(np.random.standard_normal())
    drawn.append(SeededDataset([torch.zeros(1)], 3)[0].item())
    return drawn, used, scope.used()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.usefixtures("numpys_own")
def test_a_block_works_and_gives_back_a_state_that_is_broken(state):
    expected = blocks()
    STATES[state]()
    before, kept = snapshot(), str((random.getstate(), np.random.get_state(legacy=False)))
    assert expected[1] == expected[2] == ("python", "numpy", "torch")
    assert (blocks()[0][0], blocks()[1:]) == (expected[0][0], expected[1:])
    if "increment" not in state:  # another kind of generator draws other numbers
        assert blocks() == expected
    assert snapshot() == before == snapshot()
    assert str((random.getstate(), np.random.get_state(legacy=False))) == kept


def test_a_process_that_begins_with_zeros_ends():
    code = """
import numpy as np
np.random.set_state(("MT19937", np.zeros(624, np.uint32), 624, 0, 0.0))
from seedscope import seeded, snapshot
with seeded(3) as scope:
    np.random.standard_normal()
    assert scope.used() == ("numpy",)
assert not np.random.get_state()[1].any() and snapshot() == snapshot()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)
