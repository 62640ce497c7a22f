"""A benchmark run: what it measures first, what it leaves out, and that it loses nothing."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import steps_to_measure
from benchmarks import budget, process, record
from benchmarks.budget import Pace, run, run_suite
from benchmarks.items import Item, Piece
from benchmarks.record import Record, locked
from helpers import PROGRAMS, ROOT


def item(name: str, measure=None, **facts) -> Item:
    return Item("a", name, measure or getattr(steps_to_measure, name), **facts)


def piece(*items: Item, share_s: float = math.inf) -> Piece:
    return Piece("a piece", share_s, items)


@pytest.fixture
def kept(tmp_path) -> Record:
    return Record(tmp_path / "run.json", {"device": "none"})


def is_running(pid: int) -> bool:
    """Return whether the process runs: an ended process may still have an entry."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


# ------------------------------------------------------------ with real processes


def test_a_failed_item_is_reported_and_the_others_are_measured(kept):
    items = [item("fine"), item("raises"), item("dies"), item("again", steps_to_measure.fine)]
    items.append(item("apart", steps_to_measure.fine, process="another"))
    run("x", [piece(*items)], kept)
    found = json.loads(kept.file.read_text())["found"]["a"]
    assert found["raises"]["failed"] == "ValueError: no such layer"
    assert found["dies"]["failed"] == "the process that measured it died"
    assert found["raises"]["so far"] == found["dies"]["so far"] == 1  # kept despite the failure
    processes = [found[name]["process"] for name in ("fine", "again", "apart")]
    assert len({*processes}) == 3  # one after the death, and one for each name
    assert not any(map(is_running, processes))
    assert [*kept.file.parent.iterdir()] == [kept.file]


def test_items_of_one_process_share_it(kept):
    run("x", [piece(*(item(name, steps_to_measure.fine) for name in "abc"))], kept)
    assert len({found["process"] for found in kept.found["a"].values()}) == 1


@pytest.mark.parametrize("how", ["loses_the_device", "loses_the_device_and_dies_of_it"])
def test_a_process_that_lost_its_device_is_replaced(kept, how):
    """No other item is blamed for it."""
    run("x", [piece(item(how), item("fine"))], kept)
    found = kept.found["a"]
    assert found[how]["process"] != found["fine"]["process"]
    assert not any("failed" in x for x in found.values())


def test_an_item_that_hangs_is_killed_with_its_children(kept, monkeypatch):
    """The other items are measured."""
    monkeypatch.setattr(budget, "_LEAST_S", 1.0)
    hanging = item("hangs", seconds=0.5)
    started = item("fine")  # so that the limit is not spent on starting the process
    run("x", [piece(started, hanging, item("slow"))], kept, budget_s=100)
    found = kept.found["a"]
    assert found["hangs"]["failed"].startswith("killed after ")
    assert not is_running(found["hangs"]["process"])
    assert not is_running(found["hangs"]["child"])
    assert found["slow"]["process"] != found["hangs"]["process"]


def test_a_later_run_measures_an_item_that_the_budget_cut_off(kept):
    begun = time.monotonic()
    both = piece(item("hangs"), item("fine"))
    run("x", [both], kept, budget_s=15)
    assert 14 < time.monotonic() - begun < 60
    assert left_out(kept, both) == ["hangs", "fine"]
    cut = kept.found["a"]["hangs"]
    assert cut["cut_off"]
    assert "failed" not in cut
    assert not is_running(cut["child"])
    again = [item("hangs", steps_to_measure.fine), item("fine")]
    run("x", [piece(*again)], kept, budget_s=100)
    assert kept.found["a"]["hangs"].keys() == {"process", "code", "took_s"}


def test_an_item_that_kills_its_process_on_arrival_fails(kept):
    run("x", [piece(item("one", steps_to_measure.DiesOnArrival()), item("fine"))], kept)
    assert kept.found["a"]["one"]["failed"] == "the process that measured it died"
    assert kept.found["a"]["fine"]["process"]


def test_processes_that_cannot_start_end_the_run(kept, monkeypatch):
    # As when the main module fails in the process that imports it.
    monkeypatch.setattr(process, "_serve", steps_to_measure.serves_nothing)
    with pytest.raises(RuntimeError, match="could not start: see above"):
        run("x", [piece(item("fine"))], kept)


def test_a_process_that_dies_at_its_start_is_started_again(kept, monkeypatch):
    create, serve, count = budget.Process.__init__, process._serve, itertools.count()

    def starts_later(self):
        nothing = steps_to_measure.serves_nothing
        monkeypatch.setattr(process, "_serve", nothing if next(count) == 0 else serve)
        create(self)

    monkeypatch.setattr(budget.Process, "__init__", starts_later)
    run("x", [piece(item("fine"))], kept)
    assert kept.found["a"]["fine"]["process"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_stopped_while_a_process_starts_leaves_none(kept, monkeypatch, when):
    started = []

    class Stopped(process.threading.Thread):
        def start(self):
            (child,) = multiprocessing.active_children()
            started.append(child)
            if when == "after":
                super().start()
            raise KeyboardInterrupt

    monkeypatch.setattr(process.threading, "Thread", Stopped)
    with pytest.raises(SystemExit, match="x: stopped"):
        run("x", [piece(item("fine"))], kept)
    # At its exit Python waits for every process that is still alive.
    assert started
    assert not multiprocessing.active_children()


def test_a_run_stopped_while_a_process_ends_leaves_none(kept, monkeypatch):
    end, calls = budget.Process.end, itertools.count()

    def stopped(self):
        if next(calls) == 0:
            raise KeyboardInterrupt
        end(self)

    monkeypatch.setattr(budget.Process, "end", stopped)
    with pytest.raises(SystemExit, match="x: stopped"):
        run("x", [piece(item("fine"))], kept)
    assert not multiprocessing.active_children()


def test_a_dead_worker_is_noticed_if_its_child_holds_the_pipe(kept):
    begun = time.monotonic()
    run("x", [piece(item("forks_and_dies"), item("fine"))], kept, budget_s=100)
    assert kept.found["a"]["forks_and_dies"]["failed"] == "the process that measured it died"
    assert kept.found["a"]["fine"]["process"]
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("dies_in_a_message", "the process that measured it died"),
        ("stops_in_a_message", "killed after "),
        ("cannot_be_read", "the process that measured it died"),
        ("nothing", "TypeError: the item returned None"),
    ],
)
def test_an_invalid_answer_fails_its_item_and_not_the_run(kept, monkeypatch, how, why):
    monkeypatch.setattr(budget, "_LEAST_S", 1.0)
    monkeypatch.setattr(process, "_PATIENCE_S", 1.0)
    begun = time.monotonic()
    run("x", [piece(item(how, seconds=0.5), item("fine"))], kept, budget_s=100)
    assert kept.found["a"][how]["failed"].startswith(why)
    assert kept.found["a"]["fine"]["process"]
    assert time.monotonic() - begun < 60


def test_a_process_that_hangs_after_its_item_fails_no_item(kept, monkeypatch):
    monkeypatch.setattr(budget, "_LEAST_S", 1.0)
    run("x", [piece(item("hangs_afterwards"), item("fine"))], kept, budget_s=100)
    found = kept.found["a"]
    assert found["hangs_afterwards"]["process"] != found["fine"]["process"]
    assert not any("failed" in x for x in found.values())


def test_the_answer_of_an_items_child_is_ignored(kept):
    items = [item("child_returns"), item("slow"), item("fine")]
    run("x", [piece(*items)], kept)
    assert len({found["process"] for found in kept.found["a"].values()}) == 1
    assert not any("failed" in x for x in kept.found["a"].values())


def test_an_item_that_sends_without_end_is_killed(kept, monkeypatch):
    monkeypatch.setattr(budget, "_LEAST_S", 1.0)
    begun = time.monotonic()
    run("x", [piece(item("fine"), item("floods", seconds=0.5))], kept, budget_s=100)
    assert kept.found["a"]["floods"]["failed"].startswith("killed after ")
    assert time.monotonic() - begun < 60


def test_the_run_survives_findings_that_cannot_be_written(kept, monkeypatch, capsys):
    items = [item("not_json"), item("not_a_number"), item("fine")]
    run("x", [piece(*items)], kept)
    found = record.read(kept.file)["found"]["a"]
    for name in ("not_json", "not_a_number"):
        assert found[name]["failed"].startswith("what was found is not JSON: ")
    assert found["fine"]["process"]

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(record.os, "replace", no_space)
        kept.keep(item("one", steps_to_measure.fine), {"x": 1})
    assert "could not be written: " in capsys.readouterr().err
    assert [*kept.file.parent.iterdir()] == [kept.file]  # no half-written file lies beside it
    assert "one" not in record.read(kept.file)["found"]["a"]  # the file is whole
    kept.keep(item("two", steps_to_measure.fine), {"x": 2})
    assert record.read(kept.file)["found"]["a"]["one"]["x"] == 1


def test_a_killed_run_leaves_a_readable_file_and_no_process(tmp_path):
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(PROGRAMS)!r})
from steps_to_measure import hangs, slow
from benchmarks.budget import run
from benchmarks.items import Item, Piece
from benchmarks.record import Record, locked
if __name__ == "__main__":
    items = [*(Item("a", str(i), slow) for i in range(3)), Item("a", "hangs", hangs)]
    record = Record(pathlib.Path({str(tmp_path)!r}) / "run.json", {{}})
    run("x", [Piece("p", float("inf"), items)], record)
"""
    (tmp_path / "main.py").write_text(code)
    file, environment = tmp_path / "run.json", os.environ | {"PYTHONPATH": str(ROOT)}

    def found():
        return record.read(file)["found"]["a"] if file.exists() else {}

    command = [sys.executable, tmp_path / "main.py"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: "hangs" in found())
        process.kill()
    last = found()["hangs"]
    wait_until(lambda: not is_running(last["process"]) and not is_running(last["child"]))
    assert last["cut_off"]
    assert [*found()] == ["0", "1", "2", "hangs"]


def test_only_one_run_at_a_time_writes_a_file(kept):
    with locked(kept.file):
        with pytest.raises(SystemExit, match="another run is at work on"), locked(kept.file):
            pass
        assert kept.file.with_suffix(".lock").exists()
    assert not [*kept.file.parent.iterdir()]


# ------------------------------------------------------------------ which items are measured again


def test_a_failed_item_is_measured_again_if_the_code_has_changed(kept, monkeypatch):
    one, two, three = (item(name, steps_to_measure.fine) for name in ("one", "two", "three"))
    kept.keep(one, {"process": 1})
    kept.keep(two, {"failed": "ValueError"})
    kept.keep(three, {"process": 1, "cut_off": True})
    assert [kept.is_done(x) for x in (one, two, three)] == [True, True, False]
    monkeypatch.setattr(record, "code_digest", lambda: "of mended code")
    later = Record(kept.file, {}, record.read(kept.file))
    assert [later.is_done(x) for x in (one, two, three)] == [True, False, False]


DAMAGED = ['{"found": 3}', '{"device": "x"}', '{"found": {"a": 3}}', '{"found": {"a": {"b": 3}}}']
DAMAGED += [
    json.dumps({"found": {"a": {"b": item}}})
    for item in ({"failed": "x"}, {"code": "x", "measurements": 3}, {"code": "x", "modes": []})
]


@pytest.mark.parametrize("text", ["", "{", "[]", *DAMAGED])
def test_a_file_that_is_not_a_record_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json") as refused:
        record.read(tmp_path / "run.json")
    assert "\n" not in str(refused.value)


def test_a_suite_resumes_only_the_same_run(tmp_path, monkeypatch):
    def parts():
        return {*tmp_path.glob("*.part.json")}

    def interrupted(name, facts):
        monkeypatch.setattr(
            budget, "run", lambda name, pieces, record: record.keep(two, {}) or 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            run_suite(name, [one, two], facts, tmp_path)
        monkeypatch.setattr(budget, "run", run)

    one, two = item("one", steps_to_measure.fine), item("two", steps_to_measure.fine)
    interrupted("s", {"torch": "1", "date": "today"})
    (part,) = parts()
    with locked(part), pytest.raises(SystemExit, match="another run is at work on"):
        run_suite("s", [one, two], {"torch": "1"}, tmp_path)
    for other in ({"torch": "2"}, {"torch": "1", "quick": True}):
        run_suite("s", [one, two], other, tmp_path)
        assert parts() == {part}  # the file of another run is left alone
    run_suite("s", [one], {"torch": "1"}, tmp_path)
    assert parts() == {part}
    content, file = run_suite("s", [one, two], {"torch": "1", "date": "tomorrow"}, tmp_path)
    assert file == tmp_path / "s.json"
    assert json.loads(file.read_text()) == content
    assert "process" not in content["found"]["a"]["two"]  # from the first run
    assert content["found"]["a"]["one"]["process"]
    assert not parts()


# ---------------------------------------------------- with a clock that the items advance


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()

    class Process:
        def start(self):
            pass

        def wait(self, limit):
            if not hasattr(self, "started"):
                self.started = True
                clock.now += 6

        def measure(self, measure, slot, limit):
            begun, clock.limit = clock.now, limit
            found = measure(slot)
            if slot.until < math.inf:
                found |= {"until": slot.until, "begun": begun}
            if clock.now > limit:
                clock.now = limit
                raise budget.Hung
            return found

        def end(self):
            pass

    monkeypatch.setattr(budget, "time", clock)
    monkeypatch.setattr(budget, "Process", Process)
    return clock


def takes(clock: Clock, name: str, seconds: float, expected: float, **facts) -> Item:
    def measure(slot):
        clock.now += seconds
        return {}

    return item(name, measure, seconds=expected, **facts)


def stretches(clock: Clock, name: str, seconds: float, expected: float) -> Item:
    def measure(slot):
        spare = max(0.0, slot.until - clock.now - seconds)
        clock.now += seconds + spare
        return {"spare_s": spare}

    return item(name, measure, seconds=expected, is_elastic=True)


def left_out(kept: Record, *pieces: Piece) -> list[str]:
    return [x.name for piece in pieces for x in piece.items if not kept.is_done(x)]


def test_an_item_not_expected_to_end_in_time_is_not_started(clock, kept):
    items = [takes(clock, "one", 10, 10), takes(clock, "long", 50, 50), takes(clock, "two", 10, 10)]
    run("x", [piece(*items)], kept, budget_s=60)
    assert [*kept.found["a"]] == ["one", "two"]
    assert clock.now == 26


def test_a_piece_over_its_share_waits_for_the_others(clock, kept):
    many = [takes(clock, f"first {i}", 10, 10) for i in range(6)]
    second = [takes(clock, f"second {i}", 10, 10) for i in range(2)]
    rest = [takes(clock, "rest", 10, 10)]
    pieces = [piece(*many, share_s=40), piece(*second, share_s=40), piece(*rest)]
    run("x", pieces, kept, budget_s=500)
    expected = [f"first {i}" for i in range(3)] + ["second 0", "second 1"]
    assert [*kept.found["a"]] == [*expected, "first 3", "first 4", "first 5", "rest"]


def test_the_remaining_time_goes_first_to_the_first_piece(clock, kept):
    many = [takes(clock, f"first {i}", 10, 10) for i in range(6)]
    pieces = [piece(*many, share_s=40), piece(takes(clock, "rest", 10, 10))]
    run("x", pieces, kept, budget_s=60)
    assert [*kept.found["a"]] == [f"first {i}" for i in range(5)]
    assert left_out(kept, *pieces) == ["first 5", "rest"]


def test_the_pace_of_the_machine_is_learnt_from_the_first_items(clock, kept):
    # Each item takes four times the expected time: without its pace, the third would be cut off.
    items = [takes(clock, name, 40, 10) for name in ("one", "two", "three")]
    run("x", [piece(*items)], kept, budget_s=100)
    assert left_out(kept, piece(*items)) == ["three"]
    assert not any("cut_off" in found for found in kept.found["a"].values())


def test_a_resumed_run_knows_the_pace_of_the_earlier_items(clock, kept):
    first = [takes(clock, name, 40, 10) for name in ("one", "two")]
    run("x", [piece(*first)], kept, budget_s=200)
    later = piece(*first, takes(clock, "three", 40, 10))
    run("x", [later], kept, budget_s=30)
    assert left_out(kept, later) == ["three"]
    assert "three" not in kept.found["a"]


def test_an_item_cut_off_twice_keeps_its_first_findings(clock, kept):
    seen = []

    def measure(slot):
        seen.append(slot.before)
        if len(seen) == 1:
            slot.keep({"first": 1})
        clock.now += {1: 1000, 2: 1000, 3: 0}[len(seen)]
        return {"whole": True}

    one = piece(item("one", measure))
    for _ in range(2):
        run("x", [one], kept, budget_s=20)
        assert left_out(kept, one) == ["one"]
        assert kept.found["a"]["one"]["first"] == 1
    run("x", [one], kept, budget_s=20)
    assert seen[0] == {}
    assert seen[1]["first"] == seen[2]["first"] == 1
    assert left_out(kept, one) == []
    assert "first" not in kept.found["a"]["one"]


def test_an_item_hangs_after_three_times_its_planned_time(clock, kept):
    """This holds even where the other items were fast."""
    quick = [takes(clock, str(i), 1, 100) for i in range(3)]
    run("x", [piece(*quick, takes(clock, "one", 100, 100))], kept, budget_s=1000)
    assert "failed" not in kept.found["a"]["one"]
    assert clock.limit == pytest.approx(9 + 1 + 200)  # 1 s at this pace, and twice the planned 100


def test_a_failed_item_does_not_count_for_the_pace(clock, kept):
    def fails(slot):
        clock.now += 1
        return {"failed": "it"}

    later = takes(clock, "later", 50, 50)
    run("x", [piece(item("first", fails, seconds=25), later)], kept, budget_s=40)
    assert "failed" in kept.found["a"]["first"]
    assert "later" not in kept.found["a"]
    kept.keep(again := takes(clock, "again", 1, 100), {"failed": "it", "took_s": 1.0})
    run("x", [piece(again, later)], kept, budget_s=40)
    assert "later" not in kept.found["a"]


def test_a_slow_start_counts_neither_for_item_nor_for_pace(clock, kept, monkeypatch):
    def wait(self, limit):
        clock.now += 100

    monkeypatch.setattr(budget.Process, "wait", wait)
    run("x", [piece(takes(clock, "much", 25, 1))], kept, budget_s=1000)
    assert "failed" not in kept.found["a"]["much"]
    kept.found.clear()
    one, other = takes(clock, "one", 25, 25), takes(clock, "other", 1, 1, process="other")
    run("x", [piece(one, other)], kept, budget_s=160)
    assert "other" in kept.found["a"]  # planned with a start of the usual length


def test_a_start_ends_with_the_budget(clock, kept, monkeypatch):
    def wait(self, limit):
        clock.now = limit
        raise budget.Hung

    monkeypatch.setattr(budget.Process, "wait", wait)
    run("x", [piece(takes(clock, "one", 1, 1))], kept, budget_s=20)
    assert clock.now == 20
    assert kept.found["a"]["one"]["cut_off"]


def test_newer_code_does_not_take_over_older_findings(clock, kept):
    def measure(slot):
        slot.keep({"first": 1})
        clock.now += 1000
        return {}

    one = piece(item("one", measure))
    run("x", [one], kept, budget_s=20)
    kept.code = "newer"
    run("x", [piece(takes(clock, "one", 1000, 1))], kept, budget_s=20)
    found = kept.found["a"]["one"]
    assert found["cut_off"]
    assert found["code"] == "newer"
    assert "first" not in found


@pytest.mark.parametrize("outcome", ["failed", "not ended", "not collected"])
def test_tests_that_did_not_pass_are_run_again_by_newer_code(kept, outcome):
    tests = item("tests", steps_to_measure.fine)
    kept.keep(tests, {"tests": {"a": {"outcome": "passed"}, "b": {"outcome": outcome}}})
    assert kept.is_done(tests)
    kept.code = "newer"
    assert not kept.is_done(tests)
    kept.keep(tests, {"tests": {"a": {"outcome": "passed"}, "b": {"outcome": "skipped"}}})
    kept.code = "newest"
    assert kept.is_done(tests)


def test_a_process_that_starts_slowly_does_not_fail_the_item(clock, kept, monkeypatch):
    def wait(self, limit):
        clock.now += 200
        if clock.now > limit:
            raise budget.Hung

    monkeypatch.setattr(budget.Process, "wait", wait)
    one = piece(takes(clock, "one", 1, 1))
    run("x", [one], kept, budget_s=1000)
    assert left_out(kept, one) == ["one"]
    assert "failed" not in kept.found["a"]["one"]
    monkeypatch.setattr(budget, "_START_LIMIT_S", 300)
    run("x", [one], kept, budget_s=1000)
    assert left_out(kept, one) == []


def test_each_group_has_its_own_pace():
    """A group without a pace takes that of all groups."""
    pace = Pace()
    assert pace.seconds("slow", 10) == 10
    pace.note("slow", 10, 40)
    assert pace.seconds("slow", 10) == 40
    assert pace.seconds("another", 10) == 40
    for took in (10, 12, 14):
        pace.note("another", 10, took)
    assert pace.seconds("another", 10) == pytest.approx(13)  # the pace of the slower quarter
    assert pace.seconds("slow", 10) == 40
    quick = Pace()
    quick.note("quick", 10, 1)
    assert quick.seconds("quick", 10) == 1
    assert quick.seconds("another", 10) == 10


def test_spare_time_is_shared_and_does_not_count_for_the_pace(clock, kept):
    items = [stretches(clock, name, 10, 10) for name in ("one", "two", "three")]
    items.insert(1, takes(clock, "rigid", 10, 10))
    run("x", [piece(*items, share_s=136)], kept, budget_s=500)
    took = [found["until"] - found["begun"] for found in kept.found["a"].values()]
    # Of the 136 seconds, the start takes 6 and the rigid item 10.
    assert took == pytest.approx([40, 10, 40, 40])
    assert clock.now == 136


def test_a_run_without_a_budget_measures_all_without_a_limit(clock, kept):
    untils = []

    def measure(slot):
        clock.now += 1e6
        untils.append(slot.until)
        return {}

    run("x", [piece(*(item(name, measure) for name in "abc"))], kept)
    assert untils == [math.inf] * 3
    assert len(kept.found["a"]) == 3


def test_progress_names_the_item_and_the_time(clock, kept, capsys):
    items = [takes(clock, name, 10, 10) for name in ("one", "two")]
    run("gpu", [piece(*items)], kept, budget_s=60)
    assert "gpu 2/2, 16 of 60 s: a piece, a: two" in capsys.readouterr().err
    items = [takes(clock, name, 10, 10) for name in ("three", "four")]
    run("atlas", [piece(*items)], kept)
    assert "atlas 1/2, about 26 s left: a piece, a: three" in capsys.readouterr().err


def test_a_process_ends_with_the_last_item_that_needs_it(clock, kept, monkeypatch):
    ended = []
    monkeypatch.setattr(budget.Process, "end", lambda self: ended.append(clock.now))
    items = [takes(clock, str(i), 10, 10, process=name) for i, name in enumerate("abab")]
    run("x", [piece(*items)], kept)
    assert ended == [42, 52]  # after two starts and three items, then after the last item
