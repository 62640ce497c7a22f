"""What the commands say and return where a run or a measurement has an unusual answer."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers import sweep_of
from seedscope.cli import sweep as sweep_command
from seedscope.cli.main import main
from seedscope.cli.messages import show_json
from seedscope.costs import cost
from seedscope.launch.program import find_program
from seedscope.replay import _compare, _shown, what_runs
from seedscope.runs.run import Run


def a_run(**fields):
    run = {"id": "0" * 12, "seed": 3, "began": "2026-01-01", "outcome": "ok", "text_hash": 1}
    return Run(**{**run, **fields})


@pytest.mark.parametrize(("cheapest", "code"), [(None, 1), ("a setting", 0)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_cost_exits_with_1_if_no_setting_repeats(cheapest, code, options, monkeypatch, capsys):
    class Found(SimpleNamespace):
        def as_dict(self):
            return {"cheapest": self.cheapest}

    monkeypatch.setattr(cost, "cost", lambda *_, **__: Found(cheapest=cheapest))
    assert main(["cost", "math:sin", *options]) == code
    assert "cheapest" in capsys.readouterr().out


def test_json_has_a_line_for_each_value(capsys):
    show_json({"a": [1], "b": None})
    assert capsys.readouterr().out == '{\n "a": [\n  1\n ],\n "b": null\n}\n'


@pytest.mark.parametrize(("processes", "threads"), [(2, 2), (4, 1), (3, 2), (5, 1), (9, 1)])
def test_more_threads_than_cores_are_told_of(processes, threads, monkeypatch, capsys):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    sweep_command._pool(processes, threads).shutdown()
    said = capsys.readouterr().err
    assert bool(said) == (processes * threads > 4)
    if said:
        assert f"--threads {max(1, 4 // processes)} may be much faster" in said.replace("\n", " ")


def test_a_sweep_without_processes_runs_in_this_one(monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(
        sweep_command, "_sweep", lambda _, __, options: ran.append(options) or sweep_of(1.0, 2.0)
    )
    assert main(["sweep", "math:sin"]) == 0
    assert (ran[0].processes, ran[0].threads) == (1, None)


@pytest.mark.skipif(sys.flags.safe_path, reason="python -P adds no folder")
def test_a_folder_comes_first_on_the_path_of_its_program(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", ["seedscope's", "other"])
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__main__.py").write_text("import beside")
    find_program("program", is_module=False)
    assert sys.path == [str(tmp_path / "program"), "other"]


def test_a_replay_of_a_sweep_names_what_it_imports_and_from_where():
    folders = {"script": "/a/train.py", "folder": "/b"}
    said = what_runs(a_run(sweep="train:loss", **folders))
    assert said[1] == "it imports train, first from /a or /b, and calls loss with seed 3"
    said = what_runs(a_run(sweep="train:loss", script=None, folder="/b"))
    assert said[1] == "it imports train, first from /b, and calls loss with seed 3"
    assert said[2] == "the script was unknown"
    said = what_runs(a_run(sweep="train:loss", script="/b/train.py", folder="/b"))
    assert said[1].startswith("it imports train, first from /b, and")


@pytest.mark.parametrize(("then", "now", "is_told"), [(1, 2, True), (1, 1, False)])
def test_other_hashes_of_strings_are_told_where_a_value_differs(then, now, is_told, caplog):
    caplog.set_level("INFO", "seedscope")
    assert not _compare(
        a_run(text_hash=then, notes={"loss": 1.0}), a_run(text_hash=now, notes={"loss": 2.0})
    )
    assert ("hashes of strings differ" in caplog.text) == is_told
    caplog.clear()
    equal = {"notes": {"loss": 1.0}}
    assert _compare(a_run(text_hash=then, **equal), a_run(text_hash=now, **equal))
    assert "hashes of strings" not in caplog.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", "a b"),
        ("x" * 72, "x" * 72),
        ("x" * 73, "x" * 71 + "…"),
        (np.float64(0.5), "0.5"),
        (torch.tensor(2), "2"),
        (torch.tensor([2]), "tensor([2])"),
    ],
)
def test_a_noted_value_is_shown_on_one_line(value, text):
    assert _shown(a_run(notes={"value": value}), "value") == text
    assert _shown(a_run(), "value") == "not noted"
