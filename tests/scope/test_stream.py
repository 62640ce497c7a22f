from __future__ import annotations

import copy
import importlib
import io
import pickle
import random
import threading

import numpy as np
import pytest
import torch

from fake_accelerator import DEVICES, FAKE
from helpers import Lottery, draw, run_in_fork
from seedscope import (
    ScopeConflictError,
    Source,
    Stream,
    derive_seed,
    register_source,
    seeded,
    snapshot,
)


def test_each_entry_continues_where_the_last_entry_stopped():
    with seeded(1029):
        expected = [draw() for _ in range(4)]
    stream = Stream(1029)
    FAKE.reset()
    before = snapshot()
    with stream:
        got = [draw()]
    assert before.changed(snapshot()) == ("fake",)
    draw()
    before.restore()
    with stream as scope:
        got += [draw(), draw()]
        assert scope.seed == 1029
    with seeded(7):
        draw()
        with stream:
            got += [draw()]
    assert got == expected


def test_settings_are_set_in_each_entry_and_restored_after_it():
    stream = Stream(1029, deterministic="warn")
    for _ in range(2):
        with stream:
            assert torch.get_deterministic_debug_mode() == 1
        assert torch.get_deterministic_debug_mode() == 0


@pytest.mark.parametrize("kind", [Stream, seeded])
def test_settings_follow_the_caller_unless_a_step_changed_them(kind):
    def read():
        return torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()

    def steps():
        torch.backends.cudnn.benchmark = True
        while True:
            yield read(), torch.backends.cudnn.benchmark

    step = kind(1029, deterministic=False)(steps)().__next__
    before = snapshot()
    assert step() == ((0, "highest"), True)
    assert before.changed(snapshot()) == ()
    torch.set_float32_matmul_precision("high")
    assert step() == ((0, "high"), True)
    with seeded(3):
        assert step() == ((2, "high"), True)
        assert read() == (2, "high")
    before.restore()
    assert step() == ((0, "highest"), True)
    assert before.changed(snapshot()) == ()


def test_streams_with_other_keys_are_independent():
    def first(*keys):
        with Stream(1029, *keys):
            return torch.rand(1).item()

    values = {first(), first(0), first(1), first("0"), first("data", 0)}
    assert len(values) == 5
    assert Stream(1029, "data", 0).seed == derive_seed(1029, "data", 0)
    assert Stream(1029).seed == 1029


def test_a_stream_continues_after_saving_and_loading():
    stream = Stream(1029, "augmentation")
    with stream:
        draw()
    file = io.BytesIO()
    torch.save(stream.state_dict(), file)
    with stream:
        expected = draw()
    file.seek(0)
    loaded = Stream(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert loaded.seed == stream.seed
    with loaded:
        assert draw() == expected


def test_a_stream_saved_inside_its_block_continues_from_there():
    stream = Stream(1029)
    with stream:
        draw()
        state = copy.deepcopy(stream.state_dict())
        expected = draw()
        with pytest.raises(RuntimeError, match="is open"):
            stream.load_state_dict(state)
    stream.load_state_dict(state)
    with stream:
        assert draw() == expected


def test_a_state_saved_in_an_inner_block_is_the_streams_own():
    stream, loaded = Stream(1029), Stream(0)
    with stream as scope:
        draw()
        with seeded(8) as inner:
            draw()
            state = stream.state_dict()
            assert inner.used() == scope.used()
            assert scope.used() == ("python", "numpy", "torch", "fake", "unseeded")
        expected = draw()
    loaded.load_state_dict(state)
    with loaded:
        assert draw() == expected


def test_a_stream_left_out_of_order_continues_its_own_numbers():
    with seeded(1029):
        expected = [draw(), draw()]
    before, stream, other = snapshot(), Stream(1029), seeded(8)
    stream.__enter__()
    first = draw()
    other.__enter__()
    draw()
    with pytest.raises(ScopeConflictError):
        stream.__exit__(None, None, None)
    other.__exit__(None, None, None)
    with stream:
        assert [first, draw()] == expected
    assert before.changed(snapshot()) == ()


def test_a_stream_continues_its_numbers_and_not_its_settings():
    """The same rule holds for a stream in one process and for one that was loaded."""
    stream, loaded = Stream(1029, deterministic=False), Stream(0, deterministic=False)
    with stream:
        torch.backends.cudnn.benchmark = True
        torch.use_deterministic_algorithms(True)
    loaded.load_state_dict(stream.state_dict())
    for one in (stream, loaded):
        with one:
            assert not torch.backends.cudnn.benchmark
            assert torch.get_deterministic_debug_mode() == 0


def test_a_loaded_state_reaches_suspended_generators():
    stream = Stream(1029)

    @stream
    def draws():
        while True:
            yield draw()

    running = draws()
    next(running)
    state = copy.deepcopy(stream.state_dict())
    expected = [next(running), next(running)]
    stream.load_state_dict(state)
    assert [next(running), next(running)] == expected


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copied_or_pickled_stream_continues_where_it_stands(again):
    stream = Stream(1029, deterministic="warn")
    with stream:
        draw()
    other = again(stream)
    with stream:
        expected = draw()
    with other:
        assert torch.get_deterministic_debug_mode() == 1
        assert draw() == expected


class OwnStream(Stream):
    """A user's subclass, which a pickle has to name."""

    def __init__(self, *args, label="", **options):
        super().__init__(*args, **options)
        self.label = label


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copy_keeps_the_attributes_of_the_user(again):
    assert again(OwnStream(1029, label="fold 3")).label == "fold 3"
    plain = Stream(1029)
    plain.label = ["fold 3"]
    assert again(plain).label == ["fold 3"]


@pytest.mark.parametrize("make", [Stream, OwnStream])
def test_a_pickle_keeps_the_class_and_the_threads_option(make):
    stream = make(1029, threads="wait", sources=["python"])
    other = pickle.loads(pickle.dumps(stream))
    assert type(other) is make
    drawn = []

    def enter_it():
        with other:
            drawn.append(random.random())

    thread = threading.Thread(target=enter_it)
    with seeded(5):
        thread.start()
        thread.join(0.1)
        assert not drawn
    thread.join(20)
    with stream:
        assert drawn == [random.random()]


def test_unseeded_generators_resume_in_an_import_and_a_fork(tmp_path, monkeypatch):
    def draws():
        with stream:
            return np.random.default_rng().random(), random.Random().random()

    stream = Stream(1029)
    draws()
    state, expected = stream.state_dict(), draws()
    stream.load_state_dict(state)
    assert run_in_fork(draws) == expected
    stream.load_state_dict(state)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "imports_later.py").write_text(
        "import sys\nfound = sys.modules['builtins'].draws_of_the_test()\n"
    )
    monkeypatch.setattr("builtins.draws_of_the_test", draws, raising=False)
    assert importlib.import_module("imports_later").found == expected


def test_a_stream_saved_unused_starts_from_its_seed():
    loaded = Stream(1)
    loaded.load_state_dict(Stream(1029).state_dict())
    with loaded:
        got = draw()
    with seeded(1029):
        assert draw() == got


def test_an_entry_inside_a_stream_goes_on_from_where_it_stands():
    stream, before = Stream(1029), snapshot()
    with seeded(1029):
        expected = [draw() for _ in range(7)]
    FAKE.reset()
    with stream:
        got = [draw()]
        with stream as inner:
            got += [draw()]
            assert inner.seed == 1029
        got += [draw()]
        with seeded(5):
            other = draw()
            with stream, stream:
                got += [draw()]
                saved = stream.state_dict()
            assert draw() != other  # the block between goes on with its own numbers
        got += [draw()]
    loaded = Stream(0)
    loaded.load_state_dict(saved)
    for one in (stream, loaded):
        with one:
            after = draw()
        assert after == expected[5 if one is stream else 4]
    assert got == expected[:5]
    FAKE.reset()
    assert snapshot() == before


def test_two_layers_that_share_a_stream_continue_each_other():
    stream = Stream(1029)

    @stream
    def inner():
        return draw()

    @stream
    def outer():
        return [draw(), inner(), draw()]

    with seeded(1029):
        expected = [draw() for _ in range(4)]
    assert [*outer(), inner()] == expected


def test_an_interrupted_entry_inside_a_stream_loses_nothing():
    before, stream, got = snapshot(), Stream(1029), []

    def interrupted():
        with stream:
            got.append(draw())
            with stream:
                got.append(draw())
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with stream:
        got.append(draw())
    with seeded(1029):
        assert [draw(), draw(), draw()] == got
    FAKE.reset()
    assert snapshot() == before


class OwnSource(Lottery, Source):
    """A source that a scope knows by itself, and not by a stand-in."""


def test_a_source_that_one_entry_lacks_keeps_its_numbers():
    stream, lottery = Stream(1029), OwnSource()
    with seeded(5):
        unregister = register_source(lottery)
    with stream:
        first = lottery.draw()
    unregister()
    with stream:
        draw()
    unregister = register_source(lottery)
    with stream:
        second = lottery.draw()
    with seeded(1029):
        assert [lottery.draw(), lottery.draw()] == [first, second]
    unregister()
    assert lottery.state == 7


def test_an_entry_inside_a_stream_leaves_the_sources_that_it_does_not_govern():
    before, stream = snapshot(), Stream(1029, sources=["python"])
    with stream:
        first = random.random()
        lottery = Lottery()
        unregister = register_source(lottery)
        with seeded(3), stream:
            second = random.random()
        unregister()
        assert lottery.state == 7
    with seeded(1029):
        assert [random.random(), random.random()] == [first, second]
    assert snapshot() == before


def test_each_call_of_a_decorated_function_continues():
    @Stream(1029)
    def function():
        return draw()

    @Stream(1029)
    def generator():
        yield draw()
        yield draw()

    with seeded(1029):
        expected = [draw(), draw()]
    assert [function(), function()] == expected
    assert [*generator()] == expected


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"format": 1, "sources": {}},
        {"format": 1, "seed": 1.5, "sources": {}},
        {"format": 1, "seed": -1, "sources": {}},
        {"format": 2, "seed": 1, "sources": {}},
        {"format": 1, "seed": 1, "sources": {"martian": 1}},
        {"format": 1, "seed": 1, "sources": {"python": {"version": 3}}},
        {"format": 1, "seed": 1, "sources": {"torch": torch.zeros(3)}},
        {"state": {}, "param_groups": []},
    ],
)
def test_a_damaged_or_foreign_state_is_refused_without_a_change(state):
    stream = Stream(1029)
    with stream:
        draw()
    saved, before = stream.state_dict(), snapshot()
    says = "not a Stream|state has|seed must be|the saved state of"
    with pytest.raises(ValueError, match=says):
        stream.load_state_dict(state)
    assert snapshot() == before
    again = Stream(0)
    again.load_state_dict(saved)
    with stream:
        expected = draw()
    with again:
        assert draw() == expected


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"options": None},
        {"options": {"deterministic": 5}},
        {"options": {"unknown": 1}},
        {"state": None},
        {"state": {"format": 1, "seed": 2**64, "sources": {}}},
        {"backward": "x"},
    ],
)
def test_a_damaged_pickle_is_refused(damage):
    _, (_, whole, _) = Stream(1029).__reduce__()
    before, stream = snapshot(), Stream.__new__(Stream)
    says = "damaged|not a Stream|must be"
    with pytest.raises(ValueError, match=says):
        stream.__setstate__({**whole, **damage} if damage else {})
    assert snapshot() == before


def test_repr_names_the_seed():
    assert "1029" in repr(Stream(1029))


def test_a_stream_continues_on_a_device_that_starts_inside(fake):
    """Outside, the device keeps its own state."""
    fake.init()
    stream = Stream(1029)
    with stream:
        fake.rand()
    with seeded(1029):
        expected = [fake.rand(), fake.rand()][1]
    fake.reset()
    for device in range(DEVICES):
        fake.set_rng_state(torch.Generator().manual_seed(5).get_state(), device)
    with stream as scope:
        assert fake.rand() == expected
    assert scope.used() == ("fake",)
    without = torch.rand(1, generator=torch.Generator().manual_seed(5)).item()
    assert fake.rand() == (without,) * DEVICES


def test_a_stream_leaves_a_replaced_numpy_generator_alone():
    outer, mine = snapshot(), np.random.get_bit_generator()
    with seeded(3):
        expected = np.random.standard_normal(4).tolist()
    stream = Stream(3)
    with stream:
        got = [np.random.standard_normal()]
    other = np.random.PCG64(1)
    np.random.set_bit_generator(other)
    mine.random_raw()
    before, left = snapshot(), str(mine.state)
    for _ in range(3):
        with stream:
            got.append(np.random.standard_normal())
    assert got == expected
    assert np.random.get_bit_generator() is other
    assert snapshot() == before
    assert str(mine.state) == left
    np.random.set_bit_generator(mine)
    outer.restore()


def test_used_names_the_sources_of_a_stream_after_it_is_left():
    stream = Stream(3)
    with stream as scope:
        torch.rand(1)
    assert scope.used() == ("torch",)
    with stream as scope:
        random.random()
    assert scope.used() == ("python", "torch")
