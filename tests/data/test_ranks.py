"""Iterable datasets in several ranks: each rank draws numbers of its own."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
import torch
from test_seeded_loader import Shards
from torch.utils.data import DataLoader

from helpers import PROGRAMS
from seedscope import SeededDataset, seeded_loader
from seedscope.data import drawing


def run(folder, ranks):
    folder.mkdir()
    command = [sys.executable, PROGRAMS / "iterable_ranks.py", folder]
    begun = [subprocess.Popen([*command, str(rank), str(ranks)]) for rank in range(ranks)]
    assert [process.wait(120) for process in begun] == [0] * ranks
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def test_each_rank_draws_its_own_numbers_which_repeat(tmp_path):
    first, second = run(tmp_path / "first", 2), run(tmp_path / "second", 2)
    (alone,) = run(tmp_path / "alone", 1)
    assert first == second
    for way in ("0", "2 forked", "2 spawned"):
        rows = [row for rank in first for batch in rank["batches"][way] for row in batch]
        assert sorted(index for index, _ in rows) == [*range(16)]
        assert len({number for _, number in rows}) == 16, "no two ranks or workers draw the same"
    assert all(rank["batches"]["2 forked"] == rank["batches"]["2 spawned"] for rank in first)
    assert alone["batches"]["0"][0][0][1] == first[0]["batches"]["0"][0][0][1]
    assert first[0]["state"] == first[1]["state"], "one state serves all ranks"
    assert first[0]["state"] != alone["state"]


def test_a_rank_stays_with_its_process_group(monkeypatch):
    alone = [*SeededDataset(Shards(), 1)]
    dataset = SeededDataset(Shards(), 1)
    monkeypatch.setattr(drawing, "group_rank", lambda: (1, 2))
    dataset.set_epoch(0)  # it is drawn again on purpose
    assert not torch.equal(next(iter(dataset)), alone[0])
    pickled = pickle.dumps(dataset)  # to keep it, and not for a worker
    monkeypatch.undo()
    for workers in (0, 1):
        options = {"num_workers": workers, "generator": torch.Generator()}
        loader = DataLoader(pickle.loads(pickled), None, **options)
        assert torch.equal(torch.stack([*loader]), torch.stack(alone))


def test_an_iterable_dataset_refuses_to_resume_with_other_ranks():
    loader = seeded_loader(Shards(), 1029, batch_size=2)
    state = {**loader.state_dict(), "num_replicas": 2}
    with pytest.raises(ValueError, match="num_replicas 2 instead of 1"):
        loader.load_state_dict(state)
