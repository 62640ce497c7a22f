"""Iterable datasets in several ranks: each rank draws numbers of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from test_seeded_loader import Shards

from helpers import PROGRAMS
from seedscope import seeded_loader


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


def test_an_iterable_dataset_refuses_to_resume_with_other_ranks():
    loader = seeded_loader(Shards(), 1029, batch_size=2)
    state = {**loader.state_dict(), "num_replicas": 2}
    with pytest.raises(ValueError, match="num_replicas 2 instead of 1"):
        loader.load_state_dict(state)
