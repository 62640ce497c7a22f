"""A log that is no regular file: one clear error, no waiting, and nothing left beside it."""

from __future__ import annotations

import os
import resource
import socket
import warnings
from pathlib import Path

import pytest

from helpers import run_python
from seedscope import RunLog, seeded
from seedscope.cli.main import main
from seedscope.runs import files


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "log")
    return folder / "log"


def a_socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "log"))
    return folder / "log"


def a_link_to_a_device(folder: Path) -> Path:
    (folder / "log").symlink_to("/dev/full")
    return folder / "log"


PLACES = [
    ("a named pipe", a_pipe),
    ("a socket", a_socket),
    ("a folder", lambda folder: folder),
    ("a device", lambda folder: Path("/dev/full")),
    ("a device", lambda folder: Path("/dev/zero")),
    ("a device", lambda folder: Path("/dev/null")),
    ("a device", a_link_to_a_device),
]


@pytest.mark.parametrize(("kind", "make"), PLACES)
def test_what_is_no_regular_file_is_one_clear_line(kind, make, tmp_path, capsys):
    place = make(tmp_path)
    before = {*os.listdir(place.parent), *os.listdir(tmp_path)}
    for command in (["log"], ["log", "--unfinished"], ["replay", "0a"]):
        assert main([*command, "--log", str(place)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert f"{place} is {kind}" in said.err
        assert said.err.count("\n") == 1
    said = f"seed 1( with notes .*)? could not be logged in .* is {kind}"
    with pytest.warns(RuntimeWarning, match=said), seeded(1, log=place) as scope:
        scope.note(loss=1)
    assert {*os.listdir(place.parent), *os.listdir(tmp_path)} == before


def test_a_link_to_a_regular_file_is_a_log(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/runs.jsonl")
    for path in (tmp_path / "link", tmp_path / "there" / "runs.jsonl"):
        with seeded(1, log=path):
            pass
    assert [run.seed for run in RunLog(tmp_path / "link")] == [1, 1]
    assert {*os.listdir(tmp_path)} == {"there", "link"}


def test_a_file_without_permission_is_one_clear_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    with seeded(1, log=path):
        pass
    path.chmod(0)
    os.chmod(tmp_path, 0o755)
    # Root may read everything.
    code = f"""
import os
from seedscope import RunLog
if os.getuid() == 0: os.setuid(65534)
try:
    list(RunLog({str(path)!r}))
except PermissionError as error:
    print(error)
"""
    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    assert "Permission denied" in run_python(code)


def test_a_line_without_end_is_left_out_and_not_held(tmp_path):
    path = tmp_path / "runs.jsonl"
    with seeded(1, log=path):
        pass
    os.truncate(path, 2**30)
    with open(path, "ab") as file:
        file.write(b"\n")
    with seeded(2, log=path):
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.warns(RuntimeWarning, match="lines left out: line 3 is longer than 64 MiB"):
        assert [run.seed for run in RunLog(path)] == [1, 2]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_lines_at_the_bound_and_across_chunks_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 20)
    monkeypatch.setattr(files, "_CHUNK", 7)
    lines = [b"x" * size for size in (0, 1, 6, 7, 8, 19, 20, 21, 50, 3)]
    expected = [line if len(line) <= 20 else None for line in lines]
    for end in (b"", b"\n"):
        (tmp_path / "lines").write_bytes(b"\n".join(lines) + end)
        with files.open_to_read(str(tmp_path / "lines")) as file:
            assert [*files.bounded_lines(file)] == expected


def test_a_run_whose_line_is_too_long_warns_and_leaves_the_log_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 2**16)
    log = RunLog(tmp_path / "runs.jsonl")
    said = pytest.warns(RuntimeWarning, match="a line of the log has at most")
    with said, seeded(1, log=log) as scope:
        scope.note(text="x" * 2**17)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with seeded(2, log=log):
            pass
        assert [run.seed for run in log] == [2]
        assert [run.seed for run in log.unfinished()] == [1]


@pytest.mark.parametrize("path", ["", Path("/a\0b")])
def test_a_log_without_a_usable_name_is_refused(path):
    with pytest.raises(ValueError, match=r"name of a file|null character"):
        RunLog(path)
    with pytest.raises(ValueError, match=r"name of a file|null character"):
        seeded(3, log=path)


def test_a_command_refuses_an_empty_path_of_a_log(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["log", "--log", ""])
    assert ended.value.code == 2
    assert "argument --log: must name a file, got an empty path" in capsys.readouterr().err
