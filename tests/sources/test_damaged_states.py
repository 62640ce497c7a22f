"""A state that no generator can have is refused before anything is touched."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import torch

from helpers import Lottery
from seedscope import RandomState, Snapshot, Stream, register_source, seeded, snapshot

BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def readers():
    """What reads states: each takes the dict of the sources."""
    stream = Stream(3)
    settings = snapshot().state_dict()["settings"]
    yield lambda sources: Snapshot.from_state_dict(
        {"format": 1, "sources": sources, "settings": settings}
    )
    yield lambda sources: stream.load_state_dict({"format": 1, "seed": 3, "sources": sources})
    yield lambda sources: RandomState().load_state_dict({"format": 1, "sources": sources})


def assert_refused(name, payload, match="the saved state of"):
    before = snapshot()
    for read in readers():
        with pytest.raises(ValueError, match=match):
            read({name: payload})
        assert snapshot() == before


def numpy_state(kind):
    """The saved state of `np.random` with a bit generator of this kind, and a cached Gaussian."""
    with seeded(5):
        np.random.set_bit_generator(getattr(np.random, kind)(5))
        np.random.standard_normal()
        return snapshot().state_dict()["sources"]["numpy"]


def changed(payload, path, value):
    *outer, last = path
    inner = payload
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return payload


NUMPY = [
    *[(kind, ["has_gauss"], value) for kind in BIT_GENERATORS for value in (2, -1, True, 1.0, "1")],
    *[
        (kind, ["gauss"], value)
        for kind in BIT_GENERATORS
        for value in (float("nan"), float("inf"), None, 1, "0.5")
    ],
    *[("MT19937", ["state", "pos"], value) for value in (-1, 625, 2**31, 2**40, True, 3.0)],
    *[
        ("MT19937", ["state", "key"], value)
        for value in ([0] * 624, [1] + [0] * 623, [2**31 - 1] + [0] * 623, [1] * 623, [1.0] * 624)
    ],
    *[("MT19937", ["state", "key", 7], value) for value in (-1, 2**32, True, 5.0, None, "5")],
    *[
        (kind, ["state", name], value)
        for kind in ("PCG64", "PCG64DXSM")
        for name in ("state", "inc")
        for value in (-1, 2**128, 2**128 + 1, 10**60, True, 3.0, None, "3", [3])
    ],
    *[(kind, ["state", "inc"], value) for kind in ("PCG64", "PCG64DXSM") for value in (0, 2)],
    *[
        (kind, [name], value)
        for kind in BIT_GENERATORS[1:]
        for name, value in (("has_uint32", 2), ("has_uint32", True), ("uinteger", -1))
    ],
    *[(kind, ["uinteger"], value) for kind in BIT_GENERATORS[1:] for value in (2**32, 1.0)],
    *[("Philox", ["buffer_pos"], value) for value in (-1, 5, 2**31, True, 2.0)],
    *[
        ("Philox", path, value)
        for path in (["buffer"], ["state", "key"], ["state", "counter"])
        for value in ([], [1], [1] * 5, [-1] * 4, [2**64] * 4, [1.0] * 4, None)
    ],
    *[("SFC64", ["state", "state"], value) for value in ([], [1] * 3, [-1] * 4, [1.5] * 4, 5)],
    *[(kind, ["state"], value) for kind in BIT_GENERATORS for value in (None, {}, [], 5)],
    *[("PCG64", ["new"], 5), ("PCG64", ["state", "new"], 5)],
    *[("PCG64", ["bit_generator"], v) for v in ("SFC64", "BitGenerator", "rand", "", 5, None)],
]


@pytest.mark.parametrize(("kind", "path", "value"), NUMPY)
def test_a_state_that_no_generator_of_numpy_can_have_is_refused(kind, path, value):
    assert_refused("numpy", changed(numpy_state(kind), path, value))


@pytest.mark.parametrize("kind", BIT_GENERATORS)
def test_a_missing_entry_of_numpy_is_refused(kind):
    for key in numpy_state(kind):
        payload = numpy_state(kind)
        del payload[key]
        assert_refused("numpy", payload)


PYTHON = [
    *[(["words", 3], value) for value in (-1, 2**32, True, 5.0, None, "5")],
    *[(["words", 624], value) for value in (-1, 625, 2**40, True, 3.0)],
    *[(["words"], value) for value in ([0] * 624 + [3], [2**31 - 1] + [0] * 623 + [3], "x" * 625)],
    *[(["words"], value) for value in ([], [1] * 624, [1] * 626, None, 5)],
    *[(["gauss_next"], value) for value in (float("nan"), float("inf"), 1, True, "0.5", [])],
    *[(["version"], value) for value in (2, 4, 3.0, True, None, "3")],
]


@pytest.mark.parametrize(("path", "value"), PYTHON)
def test_a_state_that_pythons_generator_cannot_have_is_refused(path, value):
    payload = snapshot().state_dict()["sources"]["python"]
    assert_refused("python", changed(payload, path, value))


def torch_state(left, following, words=None, y=0.0, has_y=0, sample=0.0, has_sample=False):
    layout = struct.Struct("=QiiQ624Q3di4xf?3x")
    words = words or [5] * 624
    packed = layout.pack(5, left, 1, following, *words, 0.0, y, 0.0, has_y, sample, has_sample)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


TORCH = [
    # torch takes the first two, and reads outside of the words with their numbers.
    *[torch_state(624, 624), torch_state(100, 600), torch_state(1, 623), torch_state(5, 5)],
    *[torch_state(0, 0), torch_state(625, 0), torch_state(-1, 0), torch_state(1, 624 + 2**32)],
    *[torch_state(1, 0, [2**31 - 1] + [0] * 623), torch_state(1, 0, [0] * 624)],
    *[torch_state(1, 0, [5] * 623 + [2**32]), torch_state(1, 0, has_y=2, y=0.5)],
    *[torch_state(1, 0, y=float("nan"), has_y=1), torch_state(1, 0, y=0.5)],
    torch_state(1, 0, sample=float("inf"), has_sample=True),
    *[torch_state(1, 0)[:5055], torch.zeros(5056), torch.zeros(5056, dtype=torch.uint8)],
    *[torch_state(1, 0).view(79, 64), torch_state(1, 0).to(torch.int8), torch_state(1, 0).tolist()],
    torch_state(1, 0).repeat_interleave(2)[::2],
    torch.zeros(1, dtype=torch.uint8).expand(5056),
    torch.zeros(1, dtype=torch.uint8).expand(10**13),  # to copy it would take 10 TB
    torch_state(1, 0).to_sparse(),
    torch.empty(5056, dtype=torch.uint8, device="meta"),
]


@pytest.mark.parametrize("payload", TORCH)
def test_a_state_that_torchs_generator_cannot_have_is_refused(payload):
    assert_refused("torch", payload)


def test_the_states_that_torch_can_have_are_taken():
    with seeded(5):
        for draw in (list, lambda: torch.rand(1), lambda: torch.randn(3), lambda: torch.rand(700)):
            draw()
            for dtype in (torch.float32, torch.float64):
                torch.randn(1, dtype=dtype)
                state = snapshot()
                expected = torch.randn(1, dtype=dtype), torch.rand(3)
                Snapshot.from_state_dict(state.state_dict()).restore()
                assert torch.randn(1, dtype=dtype) == expected[0]
                assert torch.equal(torch.rand(3), expected[1])


@pytest.mark.parametrize("place", range(0, 624, 89))
def test_a_state_of_a_single_bit_is_taken(place):
    words = [0] * 624
    words[place] = 2**31
    sources = snapshot().state_dict()["sources"]
    sources["python"]["words"][:624] = words
    sources["numpy"]["state"]["key"] = words
    sources["torch"] = torch_state(1, 0, words)
    with seeded(5):
        RandomState().load_state_dict({"format": 1, "sources": sources})
        assert snapshot().state_dict()["sources"]["numpy"]["state"]["key"] == words
        assert torch.equal(torch.get_rng_state(), sources["torch"])
        random.gauss(0, 1), np.random.standard_normal(), torch.randn(1)


def of_bytes(*values):
    return torch.tensor(values, dtype=torch.uint8)


DEVICES = [
    *[("cuda", [of_bytes(*[0] * size)]) for size in (0, 1, 8, 15, 17, 5056)],
    *[("xpu", [of_bytes(*[0] * size)]) for size in (0, 8, 17)],
    *[("mps", [of_bytes(*[0] * size)]) for size in (0, 16, 35, 37)],
    *[("mtia", [of_bytes()]), ("mtia", [torch.zeros(16)])],
    *[("mtia", [of_bytes(*[0] * 16).view(4, 4)]), ("mtia", [of_bytes(*[0] * 16).to_sparse()])],
    ("mtia", [torch.empty(16, dtype=torch.uint8, device="meta")]),
    *[("cuda", [of_bytes(*[0] * 8, offset, *[0] * 7)]) for offset in (1, 2, 3, 255)],
    ("xpu", [of_bytes(*[0] * 8, 5, *[0] * 7)]),
    *[("cuda", [torch.zeros(16, dtype=dtype)]) for dtype in (torch.int8, torch.float32)],
    *[("cuda", [of_bytes(*[0] * 16).view(4, 4)]), ("cuda", [of_bytes(*[0] * 16).to_sparse()])],
    *[("cuda", [torch.zeros(1, dtype=torch.uint8).expand(16)]), ("cuda", [torch.tensor(3)])],
    *[("cuda", [torch.empty(16, dtype=torch.uint8, device="meta")]), ("cuda", [5])],
    *[("cuda", None), ("cuda", {}), ("cuda", of_bytes(*[0] * 16)), ("cuda", "states")],
    *[("cuda", [of_bytes(*[0] * 16), of_bytes(5)]), ("cuda", [of_bytes(*[0] * 16), None])],
]


@pytest.mark.parametrize(("name", "payload"), DEVICES)
def test_a_damaged_state_of_an_absent_device_is_refused(name, payload):
    assert_refused(name, payload)


def test_a_state_of_an_absent_device_is_taken():
    states = {"cuda": [of_bytes(*range(16))] * 2, "xpu": [], "mps": [of_bytes(*range(36))]}
    state = snapshot().state_dict()
    state["sources"].update(states)
    saved = Snapshot.from_state_dict(state).state_dict()["sources"]
    assert [one.tolist() for one in saved["cuda"]] == [[*range(16)]] * 2
    assert saved["mps"][0].tolist() == [*range(36)]


def test_a_device_that_runs_checks_its_own_states(fake):
    fake.init()
    before = snapshot()
    damaged = before.state_dict()["sources"]["fake"]
    damaged[2][8] = 200  # more draws left than there are words
    damaged[2][9] = 200
    assert_refused("fake", damaged)
    assert_refused("fake", [torch.zeros(16, dtype=torch.uint8)])
    assert snapshot() == before


@pytest.mark.parametrize(
    "payload",
    [
        *(None, 5, "abc", {}, {0: 1, 1: 2, 2: 3}, [], [1, 2], [1, 2, 3, 4, 5]),
        *([1, 2, True], [1, 2.0, 3], [-1, 0, 0], [2**64, 0, 0], [1, -1, 0], [1, 2**64, 0]),
        *([1, 2, 10**5000], [1, 2, "3"], [1, 2, None], torch.ones(3)),
    ],
)
def test_a_damaged_state_of_the_entropy_is_refused(payload):
    assert_refused("unseeded", payload)


@pytest.mark.parametrize("name", ["", "Python", "martian", "x" * 1000, 5, None, True, ("python",)])
def test_a_name_of_no_source_is_refused(name):
    assert_refused(name, 5, match="which is not registered here")


@pytest.mark.parametrize(
    "error", [KeyError("a"), RuntimeError("b"), ZeroDivisionError(), OSError()]
)
def test_whatever_a_registered_source_raises_is_a_value_error(error):
    class Refusing(Lottery):
        def decode(self, payload):
            raise error

    unregister = register_source(Refusing())
    try:
        assert_refused("lottery", 5, match="the saved state of 'lottery' is damaged")
    finally:
        unregister()


def test_a_timeout_while_a_state_is_loaded_is_no_damage(monkeypatch):
    def interrupted(*_):
        raise TimeoutError("of an alarm")

    state = snapshot().state_dict()
    monkeypatch.setattr(random, "Random", interrupted)
    with pytest.raises(TimeoutError, match="of an alarm"):
        Snapshot.from_state_dict(state)
