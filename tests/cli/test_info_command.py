"""`seedscope info`."""

from __future__ import annotations

import json
import sys

import torch

from seedscope.cli.info import _shown
from seedscope.cli.main import main


def test_info_shows_the_conditions_of_reproducibility(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["versions"]["torch"] == torch.__version__
    assert info["settings"]["cudnn.benchmark"] is torch.backends.cudnn.benchmark
    assert info["environment"]["OMP_NUM_THREADS"] == "3"
    assert info["process"]["hash randomization"] is bool(sys.flags.hash_randomization)
    assert info["machine"]["CPU threads"] == torch.get_num_threads()
    assert main(["info"]) == 0
    assert f"torch      {torch.__version__}" in capsys.readouterr().out


def test_info_shows_values_that_have_parts_in_one_line():
    assert _shown({"commit": "abc", "dirty": True}) == "commit abc, dirty True"
    assert _shown(["A100", "A100"]) == "A100, A100"
    assert _shown(None) == "none"
