from __future__ import annotations

import copy
import io
import pickle
import random
import sys
import types
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch

from helpers import Lottery, draw
from seedscope import Snapshot, Source, Stream, register_source, seeded, snapshot


def test_restoring_repeats_the_draws_that_followed():
    outer = snapshot()
    FAKE_started = draw()
    moment = snapshot()
    after = draw()[:6]
    assert FAKE_started[:6] != after
    torch.backends.cudnn.benchmark = True
    moment.restore()
    assert not torch.backends.cudnn.benchmark
    assert draw()[:6] == after
    outer.restore()


def test_snapshots_compare_and_name_their_differences():
    before = snapshot()
    assert before == snapshot()
    random.random()
    np.random.standard_normal()
    torch.backends.cudnn.benchmark = True
    assert before.changed(snapshot()) == ("cudnn.benchmark", "python", "numpy")
    assert before != snapshot()
    before.restore()
    assert before == snapshot()
    assert before != "a snapshot"
    with pytest.raises(TypeError, match="expected a Snapshot"):
        before.changed({})


def test_a_snapshot_of_some_sources_restores_only_those():
    outer = snapshot()
    moment = snapshot(sources=["python"])
    value, kept = random.random(), torch.rand(1)
    moment.restore()
    assert random.random() == value
    assert torch.rand(1) != kept
    outer.restore()


def test_a_snapshot_survives_torch_save_with_weights_only():
    outer = snapshot()
    random.gauss(0, 1)  # leaves a second Gaussian in each cache
    np.random.standard_normal()
    file = io.BytesIO()
    moment = snapshot()
    torch.save(moment.state_dict(), file)
    expected = random.gauss(0, 1), np.random.standard_normal(), torch.randn(3).tolist()
    file.seek(0)
    loaded = Snapshot.from_state_dict(torch.load(file, weights_only=True))
    assert loaded == moment
    loaded.restore()
    assert (random.gauss(0, 1), np.random.standard_normal(), torch.randn(3).tolist()) == expected
    outer.restore()


def test_a_snapshot_from_a_scope_keeps_its_unseeded_generators():
    with seeded(1029):
        np.random.default_rng()
        saved = snapshot().state_dict()
        expected = np.random.default_rng().random(), random.Random().random()
    with seeded(1):
        Snapshot.from_state_dict(saved).restore()
        assert (np.random.default_rng().random(), random.Random().random()) == expected


def test_a_saved_snapshot_of_a_block_equals_itself(monkeypatch):
    with seeded(1029):
        np.random.default_rng()
        moment = snapshot()
        saved = moment.state_dict()
        monkeypatch.setitem(sys.modules, "loaded in between", types.ModuleType("x"))
        assert Snapshot.from_state_dict(saved) == moment


def test_a_pickle_names_no_module_inside_the_package():
    for thing in (snapshot(), Stream(3, "fold", sources=["python"])):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert b"seedscope." not in pickle.dumps(thing, protocol)


class OwnSnapshot(Snapshot):
    """A user's subclass, which a pickle has to name."""


def test_a_pickle_keeps_the_class_of_the_user():
    moment = OwnSnapshot(snapshot()._states)
    moment.epoch = 3
    again = pickle.loads(pickle.dumps(moment))
    assert type(again) is OwnSnapshot
    assert again.epoch == 3


def test_a_snapshot_copies_and_pickles():
    outer = snapshot()
    random.gauss(0, 1)
    moment = snapshot()
    for again in (copy.copy(moment), copy.deepcopy(moment), pickle.loads(pickle.dumps(moment))):
        assert again == moment
    value = random.gauss(0, 1), random.random()
    again.restore()
    assert (random.gauss(0, 1), random.random()) == value
    outer.restore()


def test_a_state_in_an_ordered_dict_is_saved_and_loaded():
    class Ordered(Lottery):
        def encode(self, state):
            return OrderedDict(state=state)

        def decode(self, payload):
            return payload["state"]

    unregister = register_source(Ordered())
    try:
        file = io.BytesIO()
        torch.save(snapshot().state_dict(), file)
        file.seek(0)
        assert Snapshot.from_state_dict(torch.load(file, weights_only=True)) == snapshot()
    finally:
        unregister()


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize("value", [np.zeros(2), np.float64(7), np.str_("7"), Pair(1, 2), {1, 2}])
def test_a_state_that_could_not_be_loaded_is_refused_at_saving(value):
    class Arrays(Source):
        name = "arrays"

        def capture(self):
            return {"a": [value]}

        def seed(self, seed):
            pass

        def restore(self, state):
            pass

    unregister = register_source(Arrays())
    try:
        with pytest.raises(TypeError, match=f"'arrays' has a {type(value).__name__} in its state"):
            snapshot().state_dict()
        with pytest.raises(TypeError, match="encode"):
            Stream(1029).state_dict()
    finally:
        unregister()


DAMAGES = [
    lambda state: state.clear(),
    lambda state: state.update(format=99),
    lambda state: state.pop("sources"),
    lambda state: state.update(settings=None),
    lambda state: state["sources"].update(martian=1),
    lambda state: state["settings"].update({"cudnn.benchmark": 1}),
    lambda state: state["settings"].update({"matmul.precision": 1.5}),
    lambda state: state["sources"]["python"].update(words=[1, 2]),
    lambda state: state["sources"]["python"].update(gauss_next="0.5"),
    lambda state: state["sources"]["python"].pop("version"),
    lambda state: state["sources"]["python"].update(words=[0] * 624 + [1]),
    lambda state: state["sources"]["python"].update(words=[2**40] * 624 + [1]),
    lambda state: state["sources"]["numpy"]["state"].update(pos=10**9),
    lambda state: state["sources"]["numpy"]["state"].update(pos=-5),
    lambda state: state["sources"]["numpy"]["state"].update(pos=2.5),
    lambda state: state["sources"]["numpy"]["state"].update(key=[0] * 624),
    lambda state: state["sources"]["numpy"]["state"].update(key=[1.5] * 624),
    lambda state: state["sources"]["numpy"]["state"].update(key=[5] * 700),
    lambda state: state["sources"]["numpy"].update(has_gauss=2),
    lambda state: state["sources"]["numpy"].update(bit_generator="rand"),
    lambda state: state["sources"]["numpy"]["state"].pop("key"),
    lambda state: state["sources"]["numpy"].update(gauss=None),
    lambda state: state["sources"].update(torch=state["sources"]["torch"][:100]),
    lambda state: state["sources"].update(torch=torch.zeros(5056, dtype=torch.uint8)),
    lambda state: state["sources"].update(torch="state"),
    lambda state: state["sources"].update(fake=[1, 2]),
    lambda state: state["sources"].update(unseeded=[1, -2, 3]),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused_before_anything_is_touched(damage):
    state = copy.deepcopy(snapshot().state_dict())
    damage(state)
    before = snapshot()
    with pytest.raises(ValueError, match=r"not a Snapshot|state has|the saved state of"):
        Snapshot.from_state_dict(state)
    assert snapshot() == before


def test_a_setting_that_this_torch_lacks_is_named_and_left_out():
    state = snapshot().state_dict()
    state["settings"]["cudnn.newer"] = True
    with pytest.warns(UserWarning, match=r"has no setting cudnn\.newer") as told:
        assert Snapshot.from_state_dict(state) == snapshot()
    assert told[0].filename == __file__


@pytest.mark.parametrize("place", [-1, 5, 2**40])
def test_a_position_outside_of_its_buffer_is_refused(place):
    # NumPy takes it, and reads there.
    outer = snapshot()
    np.random.set_bit_generator(np.random.Philox(5))
    state = snapshot().state_dict()
    outer.restore()
    Snapshot.from_state_dict(state)
    state["sources"]["numpy"]["buffer_pos"] = place
    with pytest.raises(ValueError, match="the saved state of"):
        Snapshot.from_state_dict(state)


@pytest.mark.parametrize("foreign", [None, 5, [], {"model": {}}, torch.zeros(3)])
def test_a_foreign_state_is_refused(foreign):
    with pytest.raises(ValueError, match=r"not a Snapshot.state_dict\(\)"):
        Snapshot.from_state_dict(foreign)


def test_a_source_that_one_of_two_snapshots_lacks_is_named():
    everything, some = snapshot(), snapshot(sources=["python"])
    assert everything.changed(some)[:2] == some.changed(everything)[:2] == ("numpy", "torch")
    assert everything != some
    assert some.changed(some) == ()
    assert snapshot(sources=[]).changed(some) == ("python",)


def test_a_source_that_cannot_be_saved_is_no_difference_after_a_round_trip():
    class Unsaved(Lottery):
        def encode(self, state):
            return None

    unregister = register_source(Unsaved())
    try:
        moment = snapshot()
        again = Snapshot.from_state_dict(moment.state_dict())
        assert moment.changed(again) == again.changed(moment) == ()
    finally:
        unregister()


def test_a_message_about_a_saved_state_shows_it_in_brief():
    saved = snapshot()
    damaged = saved.state_dict()
    with pytest.raises(TypeError, match=r"expected a Snapshot, got \{'format': 1") as raised:
        saved.changed(damaged)
    assert len(str(raised.value)) < 1_000
    damaged["sources"]["python"] = {}
    with pytest.raises(ValueError, match=r"'python' is damaged: KeyError\('version'\) in \{\}"):
        Snapshot.from_state_dict(damaged)
