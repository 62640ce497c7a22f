"""A sweep as people see it: tables, plots, the command, and the time left."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from helpers import PROGRAMS, ROOT, seedscope_command, sweep_of
from seedscope import sweep
from seedscope.sweeps.result import Sweep
from sweep_functions import sometimes_fails

pytestmark = pytest.mark.filterwarnings("ignore:the best seed may be only luck")


def test_a_notebook_and_pandas_show_every_outcome():
    with pytest.warns(UserWarning, match="1 of 5 seeds failed"):
        result = sweep(sometimes_fails, 5)
    frame = result.to_pandas()
    assert frame["seed"].tolist() == [0, 1, 2, 3, 4]
    assert frame["error"].notna().tolist() == [False, False, False, True, False]
    assert [*frame.columns] == ["seed", "value", "error", "duration", "reseeded"]
    assert frame["value"].dtype == "float64"
    shown = result._repr_html_()
    assert "<table>" in shown
    assert "seed 3: ValueError: diverged" in shown
    assert "&lt;b&gt;" in Sweep("<b>", [], "min")._repr_html_()


@pytest.mark.parametrize("name", ["seeds.png", "seeds.svg"])
def test_a_plot_is_drawn(name, tmp_path):
    generator = np.random.Generator(np.random.PCG64(5))
    for values in ([1.0], [1.0, 1.0, 2.0], generator.normal(size=50)):
        sweep_of(*values).plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    for nothing in (Sweep("f", [], "min"), sweep_of(1.0, 1.0, 1.0)):
        with pytest.raises(ValueError, match="there is nothing to plot"):
            nothing.plot(tmp_path / name)


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=re.escape('pip install "seedscope[plot]"')):
        sweep_of(1.0).plot("x.png")


def test_the_command_prints_the_table_json_and_a_plot(tmp_path):
    (tmp_path / "work.py").write_text("def loss(seed): return 1 / (seed + 1)\n")
    command = ["sweep", "work.py:loss", "--seeds", "2:6", "--plot", "seeds.png"]
    done = seedscope_command(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "best       0.166667 (min), seed 5" in done.stdout
    assert done.stderr == "seedscope: plot written to seeds.png\n"
    assert (tmp_path / "seeds.png").exists()
    done = seedscope_command(*command[:4], "--json", cwd=tmp_path)
    assert [row["value"] for row in json.loads(done.stdout)] == [1 / 3, 1 / 4, 1 / 5, 1 / 6]


def test_the_time_left_is_shown_only_on_a_terminal(tmp_path):
    command = [sys.executable, "-c", "from seedscope import sweep; import sweep_functions as f;"]
    command[-1] += "sweep(f.slow, 20)"
    environment = {**os.environ, "PYTHONPATH": f"{PROGRAMS}{os.pathsep}{ROOT}", "TERM": "xterm"}
    environment["PYTHONWARNINGS"] = "ignore"
    parent, child = pty.openpty()
    process = subprocess.Popen(command, stderr=child, env=environment)
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(parent)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "sweep_functions:slow" in text
    assert "10/20" in text
    assert "left 0:00:0" in text
    quiet = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    assert quiet.stderr == quiet.stdout == b""
