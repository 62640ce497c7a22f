"""States that are read and written in place: they agree with the public calls."""

from __future__ import annotations

import random
import sys
import threading
import time

import numpy as np
import pytest
import torch

from seedscope import Snapshot, seeded, snapshot
from seedscope.sources.numpy import NumPy
from seedscope.sources.python import Python
from seedscope.sources.registry import select_sources
from seedscope.support import memory

[PYTHON], [NUMPY] = select_sources(["python"]), select_sources(["numpy"])

DRAWS = [
    random.random,
    lambda: random.gauss(0, 1),
    lambda: random.getrandbits(77),
    lambda: random.shuffle([*range(700)]),
    np.random.rand,
    np.random.standard_normal,
    lambda: np.random.standard_normal(3),
    lambda: np.random.randint(0, 2**40, 700),
    lambda: torch.rand(1),
    lambda: torch.randn(17),
]


def public_states():
    numpy = np.random.get_state(legacy=False)
    numpy["state"] = {"pos": numpy["state"]["pos"], "key": numpy["state"]["key"].tolist()}
    return random.getstate(), numpy, torch.get_rng_state().tolist()


def words_of(seed):
    """A seed as NumPy's legacy seeding takes it."""
    return seed if seed < 2**32 else [seed % 2**32, seed // 2**32]


def test_here_the_states_are_read_in_place():
    assert PYTHON._mapped is not None
    assert NUMPY._gauss is not None


def test_5000_random_sequences_leave_the_public_states():
    outer, order = snapshot(), random.Random(1029)
    for _ in range(5000):
        for draw in order.choices(DRAWS, k=order.randrange(4)):
            draw()
        seed = order.getrandbits(order.choice([8, 32, 64]))
        before = public_states()
        with seeded(seed):
            assert random.getstate() == random.Random(seed).getstate()
            fresh = np.random.RandomState(words_of(seed)).get_state(legacy=False)
            assert public_states()[1]["state"]["key"] == fresh["state"]["key"].tolist()
            for draw in order.choices(DRAWS, k=order.randrange(4)):
                draw()
            inside = public_states()
            moment = snapshot()
            for draw in order.choices(DRAWS, k=order.randrange(4)):
                draw()
            moment.restore()
            assert public_states() == inside
        assert public_states() == before
    outer.restore()


@pytest.mark.parametrize("gaussians", [0, 1])
def test_both_ways_give_the_same_states_and_read_each_others(gaussians, monkeypatch, request):
    outer = snapshot()
    for _ in range(gaussians):
        random.gauss(0, 1), np.random.standard_normal()
    public, fast = public_states(), snapshot()
    request.getfixturevalue("public_ways")
    slow = snapshot()
    assert fast == slow
    assert fast.state_dict()["sources"]["numpy"] == slow.state_dict()["sources"]["numpy"]
    for saved in (fast, slow):  # by the public calls, and then in place
        with seeded(1029):
            random.gauss(0, 1), np.random.standard_normal(), torch.rand(1)
        saved.restore()
        assert public_states() == public
    monkeypatch.undo()
    for saved in (fast, slow, Snapshot.from_state_dict(slow.state_dict())):
        random.gauss(0, 1), np.random.standard_normal(), torch.rand(1)
        saved.restore()
        assert public_states() == public
    outer.restore()


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**64 - 1])
def test_a_repeated_seed_gives_the_same_state(seed, ways):
    states = []
    for between in (seed, seed, 5, seed):
        with seeded(between):
            states.append(public_states())
            random.random(), np.random.standard_normal(), torch.rand(1)
    assert states[0] == states[1] == states[3] != states[2]
    assert states[0][0] == random.Random(seed).getstate()


def test_a_replaced_generator_behind_random_gets_public_calls(monkeypatch):
    mine = random.Random(5)
    for name in ("random", "getstate", "setstate", "seed"):
        monkeypatch.setattr(random, name, getattr(mine, name))
    everyones = PYTHON._generator.getstate()
    before = mine.getstate()
    with seeded(1029):
        assert random.random() == random.Random(1029).random()
    assert mine.getstate() == before
    assert PYTHON._generator.getstate() == everyones


def test_a_generator_replaced_in_a_block_comes_back_as_it_was():
    functions = {name: getattr(random, name) for name in ("random", "getstate", "setstate", "seed")}
    before, mine = random.getstate(), random.Random(5)
    with seeded(1029):
        random.random()
        for name in functions:
            setattr(random, name, getattr(mine, name))
        for name, function in functions.items():
            setattr(random, name, function)
    assert random.getstate() == before


def test_an_interpreter_of_unknown_layout_gets_public_calls(monkeypatch):
    class Mine(random.Random):
        pass

    monkeypatch.setattr(random, "random", Mine().random)
    assert Python()._mapped is None
    monkeypatch.undo()
    for attribute, value in (
        ("_is_gil_enabled", lambda: False),
        ("implementation", type("Implementation", (), {"name": "pypy"})),
    ):
        monkeypatch.setattr(sys, attribute, value, raising=False)
        assert not memory.is_addressable()
        assert Python()._mapped is None
        assert NumPy()._gauss is None
        monkeypatch.undo()
    assert Python()._mapped is not None
    assert NumPy()._gauss is not None


def test_an_unexpected_layout_is_noticed(monkeypatch):
    import seedscope.sources.numpy as numpy_source
    import seedscope.sources.python as python_source

    address = python_source._address
    monkeypatch.setattr(python_source, "_address", lambda generator: address(generator) + 4)
    assert Python()._mapped is None
    map_words = numpy_source.map_at
    shifted = lambda owner, address, size: map_words(owner, address + 4, size)  # noqa: E731
    monkeypatch.setattr(numpy_source, "map_at", shifted)
    assert NumPy()._gauss is None
    monkeypatch.undo()
    monkeypatch.setattr(numpy_source.Memory, "write", lambda *_: None)
    assert NumPy()._gauss is None, "NumPy does not read what is written in place"


def test_a_generator_whose_words_are_all_zero_does_not_hang(ways):
    """`standard_normal` would draw from such a generator for ever."""
    outer = snapshot()
    zeros = {"key": np.zeros(624, np.uint32), "pos": 3}
    state = {"bit_generator": "MT19937", "state": zeros, "has_gauss": 0, "gauss": 0.0}
    np.random.set_state(state)
    before = public_states()
    with seeded(1029):
        np.random.standard_normal()
    snapshot().restore()
    assert public_states() == before
    outer.restore()


def test_a_copy_is_never_torn_while_another_thread_draws():
    """NumPy fills arrays without the GIL: only NumPy's own lock keeps a copy out meanwhile.

    `np.random.get_state` holds the lock for the words and not for the Gaussian.
    """
    outer, size, fills = snapshot(), 400_001, 25  # 8 ms each, nearly all of them without the GIL
    model = np.random.RandomState(5)
    whole = set()
    for _ in range(fills + 1):
        state = model.get_state(legacy=False)
        whole.add((state["state"]["pos"], state["has_gauss"], state["state"]["key"].tobytes()))
        model.standard_normal(size)
    np.random.seed(5)
    drawn = threading.Event()

    def draw():
        for _ in range(fills):
            np.random.standard_normal(size)
            time.sleep(0.001)  # or this thread takes the lock again before the other
        drawn.set()

    thread = threading.Thread(target=draw)
    thread.start()
    states = set()
    while not drawn.is_set():
        states.add(NUMPY.capture())
    thread.join()
    payloads = [NUMPY.encode(state) for state in states]
    keys = [np.array(p["state"]["key"], np.uint32).tobytes() for p in payloads]
    found = {
        (p["state"]["pos"], p["has_gauss"], key) for p, key in zip(payloads, keys, strict=True)
    }
    assert found <= whole
    assert len(found) > 3, "some copies were taken while the thread drew"
    outer.restore()


def test_a_write_waits_for_a_thread_that_draws():
    """Otherwise the thread's array would continue from another state in its middle."""
    outer, size = snapshot(), 200_001
    fresh = np.random.RandomState(7).standard_normal(size)
    go_on = threading.Event()
    first = []

    def draw():
        while not go_on.is_set():
            np.random.seed(7)
            first.append(np.random.standard_normal(size))

    before = NUMPY.capture()
    thread = threading.Thread(target=draw)
    thread.start()
    while len(first) < 30 and thread.is_alive():
        NUMPY.restore(before)
    go_on.set()
    thread.join()
    # A write between the thread's two calls gives another array, but a whole one, drawn
    # from `before`. No array begins in one state and ends in another.
    NUMPY.restore(before)
    other = np.random.standard_normal(size)
    assert all(np.array_equal(array, fresh) or np.array_equal(array, other) for array in first)
    outer.restore()


def test_an_interrupt_while_a_copy_waits_leaves_the_lock_free():
    import _thread

    lock = np.random.get_bit_generator().lock
    held, release = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    before = random.getstate()
    threading.Timer(0.2, _thread.interrupt_main).start()
    threading.Timer(1.0, release.set).start()
    with pytest.raises(KeyboardInterrupt), seeded(1029):
        pass
    release.set()
    thread.join()
    assert random.getstate() == before
    assert lock.acquire(timeout=5)
    lock.release()
    with seeded(1029):
        np.random.rand()
