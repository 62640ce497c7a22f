"""Damaged logs before every reader: known errors alone, the good lines, and plain output."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import resource
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from damage import damaged, damaged_bytes
from helpers import run_python
from seedscope import RunLog, seeded
from seedscope.cli.main import main
from seedscope.replay import ReplayError, check, what_runs
from seedscope.scope.options import Options
from seedscope.support.visible import visible
from seedscope.sweeps.job import Job
from seedscope.sweeps.resume import outcomes_in_log

LINES = 100  # damaged lines in a file
STYLE = re.compile("\x1b\\[[0-9;]*m")
COMMANDS = (
    *([], ["--csv"], ["--json"], ["--unfinished"], ["--replays"], ["--best", "loss"]),
    *(["--best", "array:max", "--csv"], ["--where", "loss<0.6"], ["--where", "notes.pair=[1,2]"]),
    *(["--where", "duration>0", "--where", "git!=3", "--json"], ["--where", "id=aaaa"]),
)


class Case:
    """A log with damaged lines between good ones, all from one seed."""

    def __init__(self, seed: int, records: list[dict], path: Path) -> None:
        self.chance = random.Random(seed)
        self.path = path
        lines = []
        self.good = {"begin": [], "end": []}
        for number in range(LINES):
            lines.append(self._damaged_line(records))
            good = {**records[number % len(records)], "id": f"{number:012x}"}
            self.good[good["event"]].append(good["id"])
            lines.append(self._line(good))
        text = b"\n".join(lines) + b"\n"
        if self.chance.random() < 0.1:  # damage that may take any line
            text, self.good = damaged_bytes(text, self.chance), {"begin": [], "end": []}
        path.write_bytes(text)

    def _line(self, record: dict) -> bytes:
        separators = self.chance.choice([(",", ":"), (", ", ": ")])
        return json.dumps(record, separators=separators).encode()

    def _damaged_line(self, records: list[dict]) -> bytes:
        record = {**self.chance.choice(records), "id": "d" * 12}
        if self.chance.random() < 0.6:
            record = damaged(record, self.chance)
        line = self._line(record)
        if self.chance.random() < 0.5:
            line = damaged_bytes(line, self.chance)
        return line.replace(b"\n", b"")


@pytest.fixture
def records(tmp_path) -> list[dict]:
    """Lines of a run and of a seed of a sweep, as records."""
    path = tmp_path / "good.jsonl"
    with seeded(1, log=path) as scope:
        scope.note(loss=0.5, pair=(1, 2), by={3: 4}, nan=float("nan"), z=1 + 2j, text="ü")
        scope.note(array=np.arange(4.0).reshape(2, 2), half=np.float16(0.5))
        scope.note(tensor=torch.arange(3), empty=torch.zeros(0, 3))
    begin, end = [json.loads(line) for line in path.read_text().splitlines()]
    of_sweep = {**end, "sweep": "m:f", "notes": {"value": 0.5}, "error": None, "ordinal": None}
    return [begin, end, of_sweep, {**of_sweep, "error": "Traceback:\n  ValueError", "notes": {}}]


@pytest.fixture
def job(records) -> Job:
    facts = {name: records[1].get(name) for name in ("script_sha256", "git", "function")}
    facts |= {"sweep": "m:f"}
    return Job(len, "no", Options(threads="wait"), torch.get_num_threads(), facts)


def read_all(case: Case, job: Job) -> None:
    log = RunLog(case.path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".* lines left out: ", RuntimeWarning)
        ended, begun = [*log], log.unfinished()
        assert {run.id for run in ended} >= {*case.good["end"]}
        assert {run.id for run in begun} >= {*case.good["begin"]}
        for identity in case.good["end"][:1]:
            assert log.find(identity).id == identity
        warnings.filterwarnings("ignore", ".* were made under other conditions")
        for outcome in outcomes_in_log(log, job, range(10)).values():
            assert outcome.error is not None or float(outcome.value) is not None
    for run in [*ended, *begun]:
        try:
            check(run)
        except ReplayError:
            continue
        for line in what_runs(run):
            assert visible(line) == line


def command_output(case: Case) -> None:
    arguments = ["log", *case.chance.choice(COMMANDS), "--log", str(case.path)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(arguments) in (0, 2)
    for line in STYLE.sub("", out.getvalue() + err.getvalue()).split("\n"):
        assert visible(line) == line
    if "--json" in arguments and out.getvalue():
        json.loads(out.getvalue(), parse_constant=pytest.fail)


def fuzz(seeds: Iterator[int], records: list[dict], job: Job, path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        start = time.process_time()
        case = Case(seed, records, path)
        try:
            read_all(case, job)
            command_output(case)
            took = time.process_time() - start
            assert took < 5, f"{took} s"
        except BaseException as error:
            error.add_note(f"the damage of seed {seed}, in {path}")
            raise
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_damaged_logs_are_read_around_their_damage(records, job, tmp_path):
    fuzz(range(30), records, job, tmp_path / "damaged.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_500_000_damaged_lines_are_read_around(records, job, tmp_path, part):
    start = 1000 + part * 500
    fuzz(range(start, start + 500), records, job, tmp_path / "damaged.jsonl")


def test_nothing_in_a_log_is_executed_imported_or_opened(records, tmp_path):
    path = tmp_path / "damaged.jsonl"
    Case(3, records, path)
    code = f"""
import sys, warnings
warnings.simplefilter("ignore")
from seedscope import RunLog
from seedscope.cli.main import main
from seedscope.replay import ReplayError, check, what_runs
import os
path = {str(path)!r}
commands = {[*COMMANDS]!r}

def read():
    log = RunLog(path)
    for run in [*log, *log.unfinished()]:
        try:
            check(run)
            what_runs(run)
        except ReplayError:
            pass
    for command in commands:
        main(["log", *command, "--log", path])

read()  # the modules of the commands are imported here
found = []
def hook(event, arguments):
    if event in ("open", "os.open"):
        if not isinstance(arguments[0], int) and os.fspath(arguments[0]) != path:
            found.append((event, arguments))
    elif event.startswith(("pickle.", "subprocess.", "os.system", "os.exec", "os.posix_spawn",
                           "os.fork", "marshal.", "socket.", "ctypes.dlopen")):
        found.append((event, arguments))
    elif event in ("exec", "compile", "import"):
        found.append((event, arguments))
sys.addaudithook(hook)
read()
assert not found, found
sys.stderr.write("nothing")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."])}
    run_python(code, env=environment)
