"""The benchmark suites: small, on the CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from benchmarks import (
    determinism_cost,
    harness,
    op_atlas,
    record,
)
from benchmarks.operations.catalogue import ATTENTION, OPERATIONS
from helpers import ROOT, benchmarks_command


def test_the_suites_are_listed():
    shown = benchmarks_command().stdout
    for name in ("gpu", "determinism_cost", "op_atlas", "scope_overhead", "replacements", "report"):
        assert f"  {name}: " in shown


def test_determinism_cost_measures_and_writes(tmp_path):
    done = benchmarks_command(
        "determinism_cost", "--quick", "--only", "U-Net", "--out", str(tmp_path)
    )
    assert "4/4" in done.stderr
    assert "s left" in done.stderr
    assert "summary, on cpu, small sizes" in done.stdout
    assert [*tmp_path.iterdir()] == [tmp_path / "determinism_cost_cpu.json"]
    found = record.read(tmp_path / "determinism_cost_cpu.json")
    assert found["device"] == "cpu"
    assert found["versions"]["torch"]
    assert [*found["found"]] == ["benchmark off", "benchmark off, again"]
    for process in found["found"].values():
        assert [*process] == ["U-Net, train, bf16", "U-Net, eval, bf16"]
        for session in process.values():
            assert session["canary_ms"]
            assert session["benchmark"] is False
            assert "small" in session["origin"]
            for measurement in session["measurements"]:
                assert len(measurement["digests"]) == 3
                assert measurement["ms"]
                assert len(measurement["first_ms"]) == 1
    for cost in determinism_cost.costs(found).values():
        assert all(measured.repeats for measured in cost)
        assert re.search("(all 6|6 of 6) runs", cost.recommendation())  # of both processes


def test_the_atlas_measures_writes_and_knows_the_lists(tmp_path):
    done = benchmarks_command("op_atlas", "--quick", "--only", "put", "--out", str(tmp_path))
    assert "op_atlas on cpu, small sizes, distinct results of 5 runs" in done.stdout
    found = op_atlas.measured(record.read(tmp_path / "op_atlas_cpu.json"))
    put = found["put"]
    assert "does not have a deterministic implementation" in put["modes"]["True"]["error"]
    assert "raises" in put["documented"]
    assert put["alert"] == ["put_"]
    accumulated = found["index_put accumulate, many collisions"]
    assert accumulated["documented"] == ["switches"]
    assert accumulated["modes"]["True"]["distinct"] == 1
    assert accumulated["modes"]["True"]["to_default"]["median"] > 0


def test_data_throughput_measures_and_writes(tmp_path):
    done = benchmarks_command("data_throughput", "--quick", "--out", str(tmp_path))
    assert "seeded_loader, more time, % by the clock, of CPU" in done.stdout
    found = json.loads((tmp_path / "data_throughput_cpu.json").read_text())
    assert all(case["identical"] for case in found["samples_per_second"].values())
    resuming = found["resuming"]
    for case in resuming["workers"].values():
        assert case["drawn_before_the_place"] == 0
        assert case["drawn_after_the_place"] == resuming["length"]  # half of it in two rounds
    for unit in found["seeded_loader"]["seconds_of_two_epochs"].values():
        assert {loader["n"] for loader in unit.values()} == {2}
    assert {*found["us_a_generator"]} == {"worker", "main process"}


def test_every_entry_of_the_three_lists_is_in_the_atlas():
    covered = {entry for operation in OPERATIONS for entry in operation.entries}
    lists = op_atlas.LISTS
    for entries in (
        lists["alerts"]["cuda"],
        lists["alerts"]["cpu"],
        lists["opinfo"]["functions"],
        lists["opinfo"]["modules"],
        *op_atlas.documented().values(),
    ):
        assert entries
        assert set(entries) <= covered
    names = [operation.name for operation in OPERATIONS]
    assert len(names) == len(set(names))


def test_operations_that_may_not_repeat_come_first():
    first, others = op_atlas.by_importance(OPERATIONS)
    names = [operation.name for operation in first]
    assert {operation.name for operation in [*first, *others]} == {x.name for x in OPERATIONS}
    alerted, documented = names.index("ctc_loss backward"), names.index("conv2d 3x3, forward")
    assert alerted < documented < len(names)
    on_cpu = op_atlas.measured(record.read(op_atlas.CPU_RESULTS))
    differ = {name for name, x in on_cpu.items() if x["modes"]["default"].get("distinct", 1) > 1}
    assert differ
    assert differ <= {*names}
    assert "sum" in {operation.name for operation in others} >= {x.name for x in ATTENTION}


@pytest.mark.parametrize(
    ("arguments", "folder"), [([], "results"), (["--quick"], "looks"), (["--only", "x"], "looks")]
)
def test_a_quick_look_does_not_replace_the_figures(arguments, folder):
    parser = harness.suite_parser("x", None)
    parser.add_argument("--only", default="")
    assert harness.parse(parser, arguments).out.name == folder


def test_bad_input_exits_with_code_2_and_no_traceback(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "gpu.json").write_text("{")
    commands = [["report", "--results", str(tmp_path)], ["report", "--results", str(broken)]]
    commands += [["determinism_cost", "--only", "nothing"], ["op_atlas", "--only", "nothing"]]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *command], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
