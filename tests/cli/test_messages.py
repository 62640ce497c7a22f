"""The errors of the commands, and their help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seedscope.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["log", "--log", "none.jsonl"], "there is no log at none.jsonl"),
        (["log", "--log", "broken.jsonl"], "broken.jsonl is not a run log: line 1 is not a run"),
        (["log", "--log", "."], "is a folder: name a regular file as the log"),
        (
            ["log", "--best", "accuracy"],
            "no run has a number as note 'accuracy'; the notes are: epoch, loss",
        ),
        (
            ["log", "--where", "nothing>1"],
            "no run has a field or note 'nothing'; the notes are: epoch",
        ),
        (["log", "--where", "what=3"], "no run has a field or note 'what'; the notes are: epoch"),
        (["log", "--where", "event=end"], "no run has a field or note 'event'"),
        (["sweep", "math:sin", "--plot", "x.xyz"], "--plot needs a file name that ends in .png"),
        (
            ["sweep", "math:sin", "--plot", "none/x.png"],
            "the folder of --plot 'none/x.png' does not exist",
        ),
        (["log", "--best", "loss:up"], "--best takes NOTE, NOTE:min or NOTE:max"),
        (["replay", "zzz"], "no run with an id that starts with 'zzz'"),
        (["replay", "zz"], "; seedscope log --log runs.jsonl lists the runs"),
        (["replay", "zzz", "--log", "broken.jsonl"], "cannot read the log broken.jsonl: "),
        (["replay", "zzz", "--log", "none.jsonl"], "there is no log at none.jsonl"),
        (["replay", "ffffffffff00"], "ffffffffff00 cannot be replayed: its folder"),
        (["sweep", "nowhere:f"], "no module 'nowhere' in the working folder"),
        (["sweep", "math:nothing"], "math has no 'nothing'"),
        (["sweep", "math:sin", "--log", "broken.jsonl"], "broken.jsonl is not a run log"),
        (["sweep", "math"], "'math' does not have the form MODULE:FUNCTION"),
        (["sweep", "math:pow"], "pow must be callable as fn(seed) or fn()"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(runs, capsys, arguments, says):
    Path("broken.jsonl").write_text("hello\n")
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("seedscope: ")
    assert says in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("text", ["loss", "<3", "a b=1"])
def test_a_malformed_condition_is_refused(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["log", "--where", text])
    assert stopped.value.code == 2
    assert "must be like loss<0.2 or outcome=ok" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["run"], ["log"], ["replay"], ["sweep"], ["info"]])
def test_help_explains_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "example" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--vers", "log"],
        ["run", "--see", "3", "train.py"],
        ["log", "--js"],
        ["log", "--wher", "loss<1"],
        ["replay", "--lo", "runs.jsonl", "0123"],
        ["sweep", "math:sin", "--seed", "3"],
        ["cost", "math:sin", "--qui"],
        ["info", "--js"],
        ["demo", "--see", "3"],
    ],
    ids=" ".join,
)
def test_an_option_cannot_be_abbreviated(arguments, capsys):
    # An option that a later release adds could change the meaning of an abbreviation.
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    (short,) = [word for word in arguments if word.startswith("--")]
    assert f"unrecognized arguments: {short}" in capsys.readouterr().err


def test_a_table_without_rich_names_the_extra(runs):
    code = "import sys; sys.modules['rich'] = None; from seedscope.cli.main import main; "
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(main(['log']))"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == 'seedscope: The table needs rich: pip install "seedscope[cli]"\n'


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--seeds", "a:9", "must be N or FIRST:END, such as 0:100, got 'a:9'"),
        ("--processes", "0", "must be a positive integer, got '0'"),
    ],
)
def test_an_option_with_a_wrong_value_is_refused(option, value, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "math:sin", option, value])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
