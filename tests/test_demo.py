"""`seedscope demo`: its table, its exit codes, and its error where an extra is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest
import torch

import seedscope
from helpers import ROOT
from seedscope import demo
from seedscope.cli.main import main


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=240, cwd=ROOT
    )


@pytest.fixture
def one_program() -> Iterator[None]:
    """Undo the changes of the demo: its bare runs move generators, and it sets the threads."""
    threads, before = torch.get_num_threads(), seedscope.snapshot()
    yield
    torch.set_num_threads(threads)
    before.restore()


def tiny_train(epochs: Iterable[int], device: torch.device) -> tuple[torch.nn.Module, float]:
    list(epochs)
    return torch.nn.Linear(2, 1), 0.5


def test_demo_repeats_and_its_table_names_the_digests():
    result = run("-m", "seedscope", "demo", "--epochs", "1", "--seed", "7", "--device", "cpu")
    assert result.returncode == 0, result.stdout + result.stderr
    bare, bare_again, seeded, seeded_again = re.findall(r"\b[0-9a-f]{12}\b", result.stdout)
    assert bare != bare_again
    assert seeded == seeded_again
    assert "seeded(7) made the script repeat" in result.stdout
    # Without a terminal: a plain line for each run, and no control characters.
    assert len(result.stderr.splitlines()) == 4, result.stderr
    assert "\x1b" not in result.stdout + result.stderr


def test_table_fits_80_columns_without_wrapping_a_cell(one_program, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(demo, "train", tiny_train)
    assert main(["demo", "--seed", "1029"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("0.0 s" in line for line in lines) == 4
    assert lines[-1].strip().endswith("left no trace outside.")


def test_entropy_in_a_seeded_run_is_a_broken_promise(one_program, monkeypatch, capsys):
    def train(epochs: Iterable[int], device: torch.device) -> tuple[torch.nn.Module, float]:
        model, accuracy = tiny_train(epochs, device)
        model.bias.data.fill_(int.from_bytes(os.urandom(3), "big"))
        return model, accuracy

    monkeypatch.setattr(demo, "train", train)
    assert main(["demo"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "Broken promise of seeded(1029): its two runs gave different weights" in printed


def test_state_left_changed_outside_is_a_broken_promise(one_program, monkeypatch, capsys):
    class Leaking:
        def __init__(self, seed: int) -> None:
            self.seed = seed

        def __enter__(self) -> None:
            torch.default_generator.manual_seed(self.seed)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(demo, "train", tiny_train)
    monkeypatch.setattr(demo, "seeded", Leaking)
    assert main(["demo"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "it left torch changed outside" in printed
    assert "gave different weights" not in printed


@pytest.mark.parametrize(("module", "package"), [("rich", "rich"), ("sklearn", "scikit-learn")])
def test_missing_extra_is_one_line_and_exit_code_2(module, package):
    block = f"import sys; sys.modules[{module!r}] = None; "
    result = run("-c", block + "from seedscope.cli.main import main; sys.exit(main(['demo']))")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f'seedscope: The demo needs {package}: pip install "seedscope[demo]"\n'


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seed", "-1"], "seed must be in [0, 2**64), got -1"),
        (["--seed", "red"], "'red'"),
        (["--epochs", "0"], "must be a positive integer, got '0'"),
    ],
)
def test_wrong_options_are_refused_with_their_value(arguments, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *arguments])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_cuda_is_one_line_and_exit_code_2(capsys):
    assert main(["demo", "--device", "cuda"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_help_shows_an_example(capsys):
    for arguments in (["--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        assert "example: seedscope demo --seed 7" in capsys.readouterr().out
