"""Lines of a log with the right ends and wrong inside: left out by their number, or read whole."""

from __future__ import annotations

import json
import time
import tracemalloc
import warnings
from pathlib import Path

import pytest
import torch

from seedscope import RunLog, seeded
from seedscope.runs.values import decode, encode

COMPACT = json.JSONEncoder(separators=(",", ":")).encode


@pytest.fixture
def whole(log) -> list[dict]:
    """The lines of a log of one run, as records."""
    with seeded(1, log=log) as scope:
        scope.note(loss=0.5, tensor=torch.arange(3))
    return [json.loads(line) for line in Path(log.path).read_text().splitlines()]


def written(log: RunLog, *lines: dict | str) -> RunLog:
    text = "".join(f"{line if isinstance(line, str) else COMPACT(line)}\n" for line in lines)
    Path(log.path).write_text(text)
    return log


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


WRONG_FIELDS = {
    "id": [None, 3, "", "x", "A" * 12, "0" * 13, "0" * 11 + "\n"],
    "seed": [None, -1, 2**64, 1.0, True, "1", [1]],
    "began": [None, 5, "", "yesterday", "0001-01-01T00:00:00+00:00", "9999-12-31"],
    "duration": [-1, 1e30, "1", True, [], 10**400],
    "outcome": [3, ["ok"], {}],
    "notes": [None, [], 3, "x", {"$x": 1}],
    "command": [None, "python", [1], [None], [["python"]], {}],
    "devices": [None, "cpu", [1]],
    "folder": [None, 1, ["/"]],
    "script": [1, ["x"]],
    "script_sha256": [1],
    "git": ["abc", {"commit": 3}, {"dirty": True}, {"commit": "a", "dirty": 1}, [1]],
    "versions": [None, [], {"torch": 2}, {"torch": ["2"]}],
    "settings": [None, [1]],
    "options": [None, "x"],
    "rank": ["0", 0.5, True, [0]],
    "threads": ["2", -1, 2**20, 0.5],
    "process": [None, 7, "x:y", "0" * 11 + "\0"],
    "ordinal": ["0", 1.5],
    "is_child": [None, 0, "no"],
    "text_hash": ["x", 0.5],
    "function": [1, []],
    "sweep": [1, ["f"]],
    "reseeded": [None, [], {"torch": "1"}, {"torch": [1]}],
    "error": [1, ["x"]],
    "replays": [1, "x", ["0" * 12]],
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_a_field_of_another_kind_leaves_out_its_line_and_no_other(log, whole, name):
    for value in WRONG_FIELDS[name]:
        for event, read in ((0, RunLog.unfinished), (1, lambda log: [*log])):
            bad = {**whole[event], name: value}
            good = {**whole[event], "id": "a" * 12}
            with pytest.warns(RuntimeWarning, match=rf"line 1 is damaged \((note|{name})"):
                assert [run.id for run in read(written(log, bad, good))] == ["a" * 12], value


@pytest.mark.parametrize("name", ["id", "seed", "began"])
def test_a_line_without_a_field_that_each_line_has_is_left_out(log, whole, name):
    bad = {key: value for key, value in whole[1].items() if key != name}
    with pytest.warns(RuntimeWarning, match=rf"line 1 is (damaged \({name} is missing|not)"):
        assert len([*written(log, bad, whole[1])]) == 1


BAD_NOTES = {
    "a long text type": {"$numpy": "S500000000", "value": "x"},
    "objects": {"$numpy": "object", "value": [1], "shape": [1]},
    "a record type": {"$numpy": "i4,i4", "value": [1], "shape": [1]},
    "another byte order": {"$numpy": ">f4", "value": [1.0], "shape": [1]},
    "a name of torch": {"$torch": "load", "value": 1, "shape": []},
    "a type that is a list": {"$torch": ["int8"], "value": 1, "shape": []},
    "a huge shape": {"$torch": "uint8", "value": [], "shape": [10**9]},
    "a huge shape of empty rows": {"$numpy": "uint8", "value": [], "shape": [10**9, 0]},
    "a negative size": {"$torch": "uint8", "value": [1], "shape": [-1]},
    "a size that is true": {"$torch": "uint8", "value": [1], "shape": [True]},
    "a ragged array": {"$numpy": "int8", "value": [[1], [1, 2]], "shape": [2, 1]},
    "a number too large": {"$numpy": "uint8", "value": 300},
    "a float that loses bits": {"$numpy": "float16", "value": 0.1},
    "a float too large": {"$numpy": "float32", "value": 1e300},
    "an int too large for a float": {"$numpy": "float64", "value": 10**400},
    "a float in integers": {"$torch": "int64", "value": [1.5], "shape": [1]},
    "a text in numbers": {"$torch": "int64", "value": ["1"], "shape": [1]},
    "no shape": {"$torch": "int64", "value": 1},
    "one more field": {"$numpy": "int8", "value": 1, "order": "F"},
    "two forms": {"$float": "nan", "$tuple": []},
    "an unknown form": {"$eval": "1"},
    "a float in words": {"$float": "infinity"},
    "a float in bits": {"$float": "3ff0000000000000"},
    "a complex of one": {"$complex": [1.0]},
    "a complex of text": {"$complex": ["1", "2"]},
    "a tuple of text": {"$tuple": "abc"},
    "a dict of one": {"$dict": [[1]]},
    "a dict of lists": {"$dict": [[[1], 2]]},
    "a dict with equal keys": {"$dict": [[1, 2], [1, 3]]},
    "a long integer": {"a": [10**4100]},
    "a deep list": json.loads(nested(70)),
}


@pytest.mark.parametrize("note", BAD_NOTES.values(), ids=BAD_NOTES)
def test_a_note_that_no_run_can_have_leaves_out_its_line(log, whole, note):
    bad = {**whole[1], "notes": {"x": note}}
    with pytest.warns(RuntimeWarning, match=r"line 1 is damaged \(note 'x': "):
        assert [run.notes["loss"] for run in written(log, bad, whole[1])] == [0.5]


BAD_TEXTS = {
    "deep lists": nested(100_000),
    "deep objects": nested(500, '{"a":', "}").replace(":}", ":0}", 1),
    "deep lists that Python reads": nested(300),
    "not a number": "NaN",
    "infinity": "-Infinity",
    "a float out of range": "1e999",
    "an integer of 5000 digits": "9" * 5000,
}


@pytest.mark.parametrize("field", ["notes", "settings", "later"])
@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_json_that_no_log_has_leaves_out_its_line(log, whole, text, field):
    bad = COMPACT({**whole[1], field: {"x": "HERE"}}).replace('"HERE"', text)
    with pytest.warns(RuntimeWarning, match="line 1 is damaged"):
        assert len([*written(log, bad, whole[1])]) == 1


def test_a_number_that_python_refuses_for_its_length_is_named_as_such(log, whole):
    bad = COMPACT({**whole[1], "seed": "HERE"}).replace('"HERE"', "9" * 5000)
    with pytest.warns(RuntimeWarning, match="a number has more than 4300 digits"):
        assert len([*written(log, bad, whole[1])]) == 1


def test_a_note_takes_time_and_memory_in_proportion_to_its_line():
    colliding = {"$dict": [[i * (2**61 - 1), 0] for i in range(20_000)]}
    empty = {"$torch": "float64", "value": [], "shape": [0, 10**18]}
    wide = {"$numpy": "float64", "value": [0.0] * 100_000, "shape": [100_000]}
    tracemalloc.start()
    try:
        start = time.perf_counter()
        with pytest.raises(ValueError, match="keys of a dict are equal"):
            decode(colliding)
        assert decode(empty).shape == (0, 10**18)
        assert decode(wide).shape == (100_000,)
        assert time.perf_counter() - start < 5
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("levels", [64, 65])
def test_what_is_too_deep_to_read_is_refused_when_it_is_noted(levels):
    for wrap in (lambda x: [x], lambda x: (x,), lambda x: {1: x}, lambda x: {"a": x}):
        value = 0.5
        for _ in range(levels):
            value = wrap(value)
        if levels == 64:
            assert decode(json.loads(json.dumps(encode(value, "x")))) == value
        else:
            with pytest.raises(TypeError, match=r"the log cannot keep x: .* up to 64 levels"):
                encode(value, "x")


def test_a_list_inside_itself_is_refused(log):
    loop: list = []
    loop.append(loop)
    with seeded(1, log=log) as scope, pytest.raises(TypeError, match="the log cannot keep loop"):
        scope.note(loop=loop)


def test_duplicate_keys_and_lone_surrogates_are_read(log, whole):
    line = COMPACT({**whole[1], "notes": {"\ud800": "\udfff"}}).replace(
        '"$complete"', '"seed":7,"$complete"'
    )
    (run,) = written(log, line)
    assert (run.seed, run.notes) == (7, {"\ud800": "\udfff"})


def test_a_field_of_a_later_version_hides_no_method(log, whole):
    line = {**whole[1], "what": 3, "differences": 4, "__class__": 5, "mood": "good"}
    (run,) = written(log, line)
    assert run.what()
    assert run.differences(run) == []
    assert run.mood == "good"


SPACINGS = {
    "spaces": lambda record: json.dumps(record),
    "sorted keys": lambda record: COMPACT(dict(sorted(record.items()))),
    "line ends of Windows": lambda record: COMPACT(record) + "\r",
    "spaces around": lambda record: f"  {COMPACT(record)} \t",
    "a mark of the encoding": lambda record: (
        "\ufeff" * (record["event"] == "begin") + COMPACT(record)
    ),
    "letters that are not escaped": lambda record: json.dumps(record, ensure_ascii=False),
}


@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
def test_a_log_that_another_tool_has_written_is_read(log, whole, spacing):
    whole[1]["notes"]["text"] = "größe"
    expected = [run.notes.keys() for run in written(log, *whole)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = written(log, *map(spacing, whole))
        assert [run.notes.keys() for run in again] == expected
        assert again.unfinished() == []
        assert [run.seed for run in written(log, spacing(whole[0])).unfinished()] == [1]
        # Without the last line end, as some tools leave it.
        Path(log.path).write_text(spacing(whole[0]) + "\n" + spacing(whole[1]))
        assert len([*log]) == 1


@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
def test_a_torn_line_is_told_as_torn_in_any_spacing(log, whole, spacing):
    begin, end = map(spacing, whole)
    for length in range(5, len(end) - 5, 11):
        Path(log.path).write_text(f"{begin}\n{end[:length]}")
        with pytest.warns(RuntimeWarning, match="line 2 is torn: a killed process left it"):
            assert [*log] == [], end[:length]
