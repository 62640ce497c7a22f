"""Reading the run log, even where it is torn or of a later version."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from helpers import lines
from seedscope import RunLog, seeded
from seedscope.runs.query import field


def test_a_line_torn_anywhere_is_reported_and_left_out(log):
    for seed in (1, 2):
        with seeded(seed, log=log) as scope:
            scope.note(inner={"event": "end", "$complete": True}, nan=math.nan)
    whole = Path(log.path).read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for length in range(start + 1, len(whole) - 1, 7):
        with open(log.path, "wb") as file:
            file.write(whole[:length])
        with pytest.warns(RuntimeWarning, match="line 4 is (torn|not a run record)"):
            assert [run.seed for run in log] == [1]
        with pytest.warns(RuntimeWarning):
            assert [run.seed for run in log.unfinished()] == [2]
        with seeded(3, log=log):
            pass
        with pytest.warns(RuntimeWarning, match="line 4"):
            assert [run.seed for run in log] == [1, 3]


@pytest.mark.parametrize("damage", [b"\0" * 50, b"\xff" * 50, b'"' * 50])
@pytest.mark.parametrize("line", [0, 1])
def test_a_line_damaged_in_its_middle_is_reported_and_left_out(log, damage, line):
    for seed in (1, 2):
        with seeded(seed, log=log):
            pass
    whole = Path(log.path).read_bytes().splitlines(keepends=True)
    middle = len(whole[line]) // 2
    whole[line] = whole[line][:middle] + damage + whole[line][middle + 50 :]
    Path(log.path).write_bytes(b"".join(whole))
    kept = [1, 2] if line == 0 else [2]
    if line == 0:  # the begin of a run that has ended
        assert [run.seed for run in log] == kept
        with pytest.warns(RuntimeWarning, match="line 1 is damaged"):
            assert log.unfinished() == []
    else:
        with pytest.warns(RuntimeWarning, match="line 2 is damaged"):
            assert [run.seed for run in log] == kept


def test_a_noted_tensor_is_read_under_another_default_device(log):
    with seeded(1, log=log) as scope:
        scope.note(loss=torch.tensor([0.5, 0.25]))
    with torch.device("meta"):
        (run,) = log
    assert run.notes["loss"].tolist() == [0.5, 0.25]


def test_a_missing_log_is_empty_and_another_file_is_refused(log):
    assert [*log] == []
    assert log.unfinished() == []
    with open(log.path, "w") as file:
        file.write("hello\nworld\n")
    with pytest.raises(ValueError, match="is not a run log: line 1 is not a run record"):
        list(log)


def test_find_takes_the_beginning_of_an_id(log):
    for seed in range(3):
        with seeded(seed, log=log):
            pass
    runs = [*log]
    assert log.find(runs[1].id) == runs[1]
    assert log.find(runs[1].id[:8]) == runs[1]
    with pytest.raises(LookupError, match="no run with an id that starts with 'xyz'"):
        log.find("xyz")
    with pytest.raises(LookupError, match="3 runs"):
        log.find("")


def test_a_line_of_a_later_version_can_be_read(log):
    with seeded(1, log=log):
        pass
    text = Path(log.path).read_text()
    Path(log.path).write_text(text.replace('"seed":1', '"seed":1,"mood":"good"'))
    assert [run.mood for run in log] == ["good"]


def test_jq_and_pandas_can_read_the_log(log, tmp_path):
    import pandas

    with seeded(2**32 - 1, log=log) as scope:
        scope.note(loss=0.5)
    frame = pandas.read_json(log.path, lines=True)
    assert frame["seed"].tolist() == [2**32 - 1] * 2
    # What `jq -c 'select(.event == "end")'` writes.
    kept = [line for line in lines(log) if line["event"] == "end"]
    (tmp_path / "kept.jsonl").write_text(
        "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept)
    )
    assert [run.notes for run in RunLog(tmp_path / "kept.jsonl")] == [{"loss": 0.5}]


def test_a_line_that_repeats_a_run_is_left_out(log):
    with seeded(3, log=log) as scope:
        pass
    with open(log.path, "rb") as file:
        lines = file.readlines()
    with open(log.path, "ab") as file:
        file.writelines(lines)  # as `cat` of two copies does
    with pytest.warns(RuntimeWarning, match=f"line 4 repeats the run {scope.run_id}"):
        assert len([*log]) == 1
    assert log.unfinished() == []


def test_an_end_without_an_outcome_is_damaged(log):
    with seeded(3, log=log), seeded(4, log=log):
        pass
    with open(log.path) as file:
        text = file.read()
    with open(log.path, "w") as file:
        file.write(text.replace('"outcome":"ok"', '"outcome":null', 1))
    with pytest.warns(RuntimeWarning, match=r"line 3 is damaged \(outcome is None\)"):
        assert [run.seed for run in log] == [3]


LEAST = {"id": "0" * 12, "seed": 3, "began": "2026-01-01T00:00:00+00:00"}


def test_a_line_with_the_least_fields_gives_a_run_with_the_defaults(log):
    log.append("begin", LEAST)
    (run,) = log.unfinished()
    nothing = ("duration", "outcome", "script", "script_sha256", "git", "threads", "rank")
    nothing += ("text_hash", "function", "sweep", "error", "replays")
    assert [getattr(run, name) for name in nothing] == [None] * len(nothing)
    empty = ("notes", "command", "versions", "devices", "settings", "options", "reseeded")
    assert all(len(getattr(run, name)) == 0 for name in empty)
    assert (run.folder, run.process, run.ordinal, run.is_child) == ("", "", 0, False)


@pytest.mark.parametrize(
    ("name", "value", "is_sound"),
    [
        *[("began", f"{year}-06-01T00:00:00+00:00", year == "0002") for year in ("0001", "0002")],
        *[("began", f"{year}-06-01T00:00:00+00:00", year == "9998") for year in ("9998", "9999")],
        *[("threads", count, count in (1, 65535)) for count in (-1, 1, 65535, 65536)],
        *[("seed", seed, seed == 2**64 - 1) for seed in (-1, 2**64 - 1, 2**64)],
        *[("duration", duration, duration < 1e12) for duration in (9e11, 1e12)],
        *[("reseeded", {"numpy": seed}, seed != "5") for seed in (5, None, "5")],
        *[("versions", {"torch": version}, version != 2) for version in ("2", None, 2)],
        *[("git", {"commit": "a", "dirty": dirty}, dirty != "no") for dirty in (True, None, "no")],
    ],
)
def test_a_field_at_the_ends_of_its_range_is_read_or_named(log, name, value, is_sound):
    log.append("begin", LEAST)
    log.append("begin", LEAST | {"id": "1" * 12, name: value})
    if is_sound:
        assert getattr(log.unfinished()[1], name) == value
    else:
        with pytest.warns(RuntimeWarning, match=rf"line 2 is damaged \({name} is "):
            assert len(log.unfinished()) == 1


@pytest.mark.parametrize("line", ["[", "[1,", "text", '"event', "12"])
def test_a_line_that_does_not_begin_an_object_is_no_torn_record(log, line):
    log.append("begin", LEAST)
    with open(log.path, "a") as file:
        file.write(line)
    with pytest.warns(RuntimeWarning, match="line 2 is not a run record"):
        assert len(log.unfinished()) == 1


def test_the_commit_of_a_run_without_a_repository_is_none(log):
    log.append("begin", LEAST)
    log.append("begin", LEAST | {"id": "1" * 12, "git": {"commit": "abc", "dirty": False}})
    assert [field(run, "commit") for run in log.unfinished()] == [None, "abc"]
