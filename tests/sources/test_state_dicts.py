"""The dict of saved states: its form is checked, and what was loaded is its reader's own."""

from __future__ import annotations

import pytest
import torch

from helpers import Lottery
from seedscope import RandomState, Snapshot, Stream, register_source, snapshot


@pytest.mark.parametrize(
    "change",
    [{"format": v} for v in (None, 0, 2, True, 1.0, "1", torch.tensor(1), torch.ones(3), [1])]
    + [{"sources": v} for v in (None, [], "x", 5, torch.ones(3))],
)
def test_a_wrong_frame_is_refused(change):
    before = snapshot()
    for thing in (snapshot(), RandomState(), Stream(3, sources=["python"])):
        with pytest.raises(ValueError, match=r"state_dict\(\)|has format"):
            thing.load_state_dict({**thing.state_dict(), **change})
    assert snapshot() == before


def test_entries_beside_a_snapshot_belong_to_the_user():
    state = {**snapshot().state_dict(), "epoch": 7}
    assert Snapshot.from_state_dict(state) == snapshot()


def test_a_later_change_of_the_dict_does_not_change_what_was_loaded(fake):
    fake.init()
    moment, stream, resumed = snapshot(), Stream(5), Stream(0)
    with stream:
        pass
    saved, streams = moment.state_dict(), stream.state_dict()
    loaded = Snapshot.from_state_dict(saved)
    resumed.load_state_dict(streams)
    for state in (saved, streams):
        sources = state["sources"]
        sources["torch"].zero_()
        sources["fake"][0].zero_()
        sources["python"]["words"][0] = 0
        sources["numpy"]["state"]["key"][0] = 0
    assert loaded == snapshot() == moment
    expected = torch.rand(1, generator=torch.Generator().manual_seed(5))
    for one in (stream, resumed):
        with one:
            assert torch.rand(1) == expected
            assert fake.rand() == (expected.item(),) * 4


def test_the_state_of_a_source_without_decode_is_copied():
    unregister = register_source(Lottery())
    try:
        saved = snapshot().state_dict()
        payload = saved["sources"]["lottery"] = {"values": [5], "tensor": torch.ones(2)}
        loaded = Snapshot.from_state_dict(saved)
        payload["values"][0], payload["tensor"][0] = 7, 7
        kept = loaded.state_dict()["sources"]["lottery"]
        assert kept["values"] == [5]
        assert kept["tensor"].tolist() == [1, 1]
    finally:
        unregister()
