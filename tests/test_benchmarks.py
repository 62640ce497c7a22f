"""The benchmark suites: the paths that a GPU takes, at small sizes on the CPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from filelock import FileLock
from steps_to_measure import DiesOnArrival, device_or_death, device_or_not, fine_or_not

from benchmarks import determinism_cost, harness, op_atlas, report, resumable, scope_overhead
from benchmarks.models import CASES
from benchmarks.operations import OPERATIONS
from benchmarks.resumable import measure_all
from seedscope.costs import ARMS

# Figures that nobody measured: they are there to be drawn.
MADE_UP = Path(__file__).parent / "made_up_results"


def run(*arguments: str, program: tuple[str, ...] = ("-m", "benchmarks")) -> Any:
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_suites_are_listed():
    shown = run().stdout
    for name in ("determinism_cost", "op_atlas", "scope_overhead", "report"):
        assert name in shown


def test_determinism_cost_measures_writes_as_it_goes_and_resumes(tmp_path):
    command = ["determinism_cost", "--quick", "--only", "LSTM", "--out", str(tmp_path)]
    done = run(*command)
    assert "4/4" in done.stderr and "s left" in done.stderr
    assert "summary, on cpu, small sizes" in done.stdout
    found = json.loads((tmp_path / "determinism_cost_cpu.json").read_text())
    assert found["device"] == "cpu" and found["versions"]["torch"]
    assert [*found["cases"]] == ["LSTM, train, bf16", "LSTM, eval, bf16"]
    for case in found["cases"].values():
        assert "small" in case["origin"] and len(case["sessions"]) == 2
        for session in case["sessions"]:
            assert session["canary_ms"] and session["benchmark"] is False
            for arm in session["arms"]:
                assert len(arm["digests"]) == 3 and arm["ms"] and len(arm["first_ms"]) == 1
    for cost in determinism_cost.costs(found).values():
        assert all(measured.repeats for measured in cost)

    # Killed, and its last line cut short.
    def parts():
        return [*tmp_path.glob("*.part.jsonl")]

    assert parts() == []
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *command], stderr=subprocess.DEVNULL, cwd=ROOT
    ) as process:
        while not parts() or parts()[0].read_text().count("\n") < 2:
            time.sleep(0.05)
        process.kill()
    (part,) = parts()
    begun, line = map(json.loads, part.read_text().splitlines()[:2])
    assert begun[2] is None
    line[2]["kept"] = "from before"
    part.write_text(json.dumps(line) + "\n" + '["process 1", "LSTM, ev')
    look = run("determinism_cost", "--quick", "--only", "LSTM, eval", "--out", str(tmp_path))
    assert "1/2" in look.stderr and parts() == [part]  # another run's is its own
    assert "1/4" not in run(*command).stderr
    again = json.loads((tmp_path / "determinism_cost_cpu.json").read_text())
    sessions = again["cases"]["LSTM, train, bf16"]["sessions"]
    assert sessions[0]["kept"] == "from before" and "kept" not in sessions[1]
    assert [*tmp_path.iterdir()] == [tmp_path / "determinism_cost_cpu.json"]


def test_what_fails_or_takes_its_process_with_it_is_reported_and_the_others_go_on(tmp_path):
    items = ["fine", "raises", "dies", "fine too"]
    groups = {"a": items, "b": ["fine"]}
    done, part = measure_all("x", tmp_path, {"torch": "1"}, groups, fine_or_not)
    assert done["a", "raises"] == {"failed": "ValueError: no such layer"}
    assert done["a", "dies"] == {"failed": "the process that measured it died"}
    fine = [done["a", "fine"], done["a", "fine too"], done["b", "fine"]]
    assert len({found["process"] for found in fine}) == 3  # a new one after the death, and for b
    assert measure_all("x", tmp_path, {"torch": "1"}, groups, fine_or_not) == (done, part)  # kept
    again, _ = measure_all("x", tmp_path, {"torch": "2"}, groups, fine_or_not)
    assert again["b", "fine"] != done["b", "fine"]
    with FileLock(f"{part}.lock"), pytest.raises(SystemExit, match="another run of the same"):
        measure_all("x", tmp_path, {"torch": "1"}, groups, fine_or_not)


def test_a_run_goes_on_behind_the_same_libraries_code_and_items_alone(tmp_path, monkeypatch):
    def file_of(facts=(), **groups):
        return measure_all("x", tmp_path, dict(facts), groups, fine_or_not)[1]

    files = {file_of(a=["fine"]), file_of(a=["raises"]), file_of({"torch": "1"}, a=["fine"])}
    assert file_of(a=["fine"]) in files and len(files) == 3
    monkeypatch.setattr(resumable, "code_digest", lambda: "of other code")
    assert file_of(a=["fine"]) not in files

    facts = {}
    monkeypatch.setattr(
        determinism_cost, "measure_all", lambda *given: facts.update(given[2]) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        determinism_cost.collect("cpu", True, tmp_path, CASES[:1])
    assert (
        facts["quick"] is True and facts["versions"]["torch"] and "small" in str(facts["origins"])
    )


@pytest.mark.parametrize(
    ("arguments", "folder"), [([], "results"), (["--quick"], "looks"), (["--only", "x"], "looks")]
)
def test_a_look_does_not_take_the_place_of_the_figures(arguments, folder):
    parser = harness.suite_parser("x", None)
    parser.add_argument("--only", default="")
    assert harness.parse(parser, arguments).out.name == folder


def test_a_process_that_dies_before_it_measures_ends_the_run(tmp_path):
    with pytest.raises(BrokenProcessPool):
        measure_all("x", tmp_path, {}, {"a": ["one"]}, DiesOnArrival())


def test_new_sizes_that_do_not_fit_cost_no_figures(monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(determinism_cost, "_new_sizes", too_large)
    (case,) = [case for case in CASES if case.name == "U-Net, train, bf16"]
    found = determinism_cost.run_case(case, False, "cpu", quick=True, new_sizes=True)
    assert found["failed"].startswith("new input sizes: CUDA out of memory") and found["arms"]


def test_a_process_that_lost_its_device_is_replaced(tmp_path):
    done, _ = measure_all("x", tmp_path, {}, {"a": ["lost", "after"]}, device_or_not)
    assert done["a", "lost"]["process"] != done["a", "after"]["process"]
    # It may die of that, when all is written: nobody else is blamed.
    done, _ = measure_all("x", tmp_path, {}, {"b": ["lost", "after"]}, device_or_death)
    assert not any("failed" in found for found in done.values())


def test_a_run_that_is_killed_leaves_no_process_that_goes_on(tmp_path):
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from steps_to_measure import slow
from benchmarks.resumable import measure_all
if __name__ == "__main__":
    measure_all("x", pathlib.Path({str(tmp_path)!r}), {{}}, {{"a": list("abcdefghij")}}, slow)
"""
    (tmp_path / "main.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, tmp_path / "main.py"], env=environment) as process:
        while not (found := [*tmp_path.glob("x.*.jsonl")]) or '"process"' not in (
            text := found[0].read_text()
        ):
            time.sleep(0.05)
        child = json.loads(text.splitlines()[1])[2]["process"]
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
    assert found[0].read_text().count('"process"') < 4


def test_a_network_that_failed_is_named_in_summary_and_report(capsys):
    failed = {"arms": [], "canary_ms": [], "failed": "ValueError: no such layer"}
    facts = json.loads((MADE_UP / "determinism_cost_cuda.json").read_text())
    fine = facts["cases"]["ResNet-50, train, bf16"]["sessions"]
    cases = {
        "LSTM, train, bf16": {"origin": "made up", "sessions": [failed] * 4},
        "U-Net, train, bf16": {"origin": "made up", "sessions": [*fine[:3], failed]},
    }
    determinism_cost.show_report(facts | {"cases": cases})
    shown = capsys.readouterr().out
    assert "LSTM, train, bf16: ValueError: no such layer" in shown
    assert re.search("U-Net, train, bf16: cheapest reproducible.*; ValueError: no such", shown)
    cases["ViT"] = {"origin": "made up", "sessions": [failed, *fine[1:3], failed]}  # no defaults
    assert report.cost_tables(facts | {"cases": cases}).count("| none |") == 2


def test_the_summary_says_what_cudnn_kept_and_how_steady_the_clocks_were(capsys):
    made_up = json.loads((MADE_UP / "determinism_cost_cuda.json").read_text())
    determinism_cost.show_report(made_up)
    shown = capsys.readouterr().out
    assert "with benchmark off are kept: benchmark has no effect on them (first, bench" in shown
    assert "timed beside the networks, took 1 to 1 ms, 1980 to 1980 MHz" in shown
    assert "500 to 500 W; clocks held back at times by power" in shown
    made_up["plan_cache"]["ms"]["first, after benchmark off"] = 29.0
    assert "are chosen anew with it on" in determinism_cost.plan_verdict(made_up)
    made_up["plan_cache"] = {"failed": "RuntimeError: no cuDNN"}
    assert determinism_cost.plan_verdict(made_up) == "cuDNN's plans: RuntimeError: no cuDNN"


@pytest.mark.slow
def test_every_network_has_a_step_that_repeats_on_the_cpu():
    for case in CASES:
        found = determinism_cost.run_case(case, False, "cpu", quick=True, new_sizes=True)
        arms = {arm["arm"]: arm for arm in found["arms"]}
        assert len(set(arms["deterministic=True"]["digests"])) == 1, case
        assert "MATH" not in arms  # the pinned ones are a GPU's
        assert ("new_sizes_ms" in found) is (case in determinism_cost._SIZED)


def test_the_atlas_measures_writes_and_knows_the_lists(tmp_path):
    done = run("op_atlas", "--quick", "--only", "put", "--out", str(tmp_path))
    assert "op_atlas on cpu, small sizes, distinct results of 5 runs" in done.stdout
    found = json.loads((tmp_path / "op_atlas_cpu.json").read_text())["operations"]
    put = found["put"]
    assert "does not have a deterministic implementation" in put["modes"]["True"]["error"]
    assert "raises" in put["documented"] and put["alert"] == ["put_"]
    accumulated = found["index_put accumulate, many collisions"]
    assert accumulated["documented"] == ["switches"]
    assert accumulated["modes"]["True"]["distinct"] == 1
    assert accumulated["modes"]["True"]["to_default"]["median"] > 0


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
        assert entries and set(entries) <= covered
    names = [operation.name for operation in OPERATIONS]
    assert len(names) == len(set(names))


def test_the_report_draws_what_there_is_and_names_the_device(tmp_path):
    done = run("report", "--results", str(MADE_UP), "--out", str(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert str(tmp_path / "report.md") in done.stdout
    titles = re.findall("^## .*", text, re.M)
    assert len(titles) == 2 and all("MADE UP" in title for title in titles)
    assert "| 1.31x, 1/12 |" in text and "| cannot run |" in text and "3/12" in text
    assert "cheapest that repeats" in text and 'deterministic="cudnn", 1.02x' in text
    assert "FLASH_ATTENTION" in text and "Eight new input sizes" in text
    assert "after benchmark off: 0.20 ms" in text and "clocks held back" in text
    assert "attention cudnn 1024 backward: RuntimeError: no kernel" in text
    assert "\n5 operations, 30 runs each" in text and "| could not be measured here | 1 |" in text
    assert "| ResNet-50, train, bf16 | 90 | 81 |" in text  # the first step of a case
    assert "cumsum: documented to raise under True, and runs" in text
    figure = (tmp_path / "determinism_cost_cuda.svg").read_text()
    assert figure.startswith("<?xml") and len(figure) > 10_000


def test_the_reports_of_the_cpu_say_so(tmp_path):
    for name in ("determinism_cost", "op_atlas"):
        made_up = json.loads((MADE_UP / f"{name}_cuda.json").read_text()) | {"device": "cpu"}
        (tmp_path / f"{name}_cpu.json").write_text(json.dumps(made_up))
    report.write(tmp_path, tmp_path)
    figure = (tmp_path / "determinism_cost_cpu.svg").read_bytes()
    report.write(tmp_path, tmp_path)
    assert (tmp_path / "determinism_cost_cpu.svg").read_bytes() == figure
    titles = re.findall("^## .*", (tmp_path / "report.md").read_text(), re.M)
    assert len(titles) == 2 and all("CPU only, small sizes" in title for title in titles)


def test_a_gpu_that_is_not_there_and_results_that_are_not_are_one_line(tmp_path):
    arguments = [["report", "--results", str(tmp_path)]]
    arguments += [["determinism_cost", "--only", "nothing"], ["op_atlas", "--only", "nothing"]]
    if not torch.cuda.is_available():
        arguments += [["determinism_cost", "--device", "cuda"], ["op_atlas", "--device", "cuda"]]
    for command in arguments:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *command], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr


def pretend(*arguments: str) -> Any:
    """Run a suite as on a GPU, at the CPU's sizes."""
    program = (str(ROOT / "tests" / "pretended_gpu.py"),)
    return run(*arguments, "--device", "cuda", "--quick", program=program)


def test_determinism_cost_takes_the_ways_of_a_gpu(tmp_path):
    done = pretend("determinism_cost", "--only", "U-Net, train", "--out", str(tmp_path))
    found = json.loads((tmp_path / "determinism_cost_cuda.json").read_text())
    assert found["device"] == "PRETENDED, no GPU measured this"
    sessions = found["cases"]["U-Net, train, bf16"]["sessions"]
    assert [session["benchmark"] for session in sessions] == [False, True, True, False]
    assert ["new_sizes_ms" in session for session in sessions] == [True, True, False, False]
    for session in sessions:
        assert session["canary_ms"] and session["gpu"]["clock_rate"] == 1980
        assert [arm["arm"] for arm in session["arms"]] == [
            arm.name for arm in ARMS if arm.benchmark == session["benchmark"]
        ]
        for arm in session["arms"]:
            assert arm["ms"] and len(arm["digests"]) == 3 and arm["peak_mb"] == 1
    assert all(ms > 0 for ms in found["plan_cache"]["ms"].values())
    assert "peak MB" in done.stdout and "cuDNN's plans of shapes" in done.stdout
    report.write(tmp_path, tmp_path)
    assert "first step of a case" in (tmp_path / "report.md").read_text()


def test_the_atlas_takes_the_ways_of_a_gpu(tmp_path):
    pretend("op_atlas", "--only", "index_put", "--out", str(tmp_path))
    found = json.loads((tmp_path / "op_atlas_cuda.json").read_text())["operations"]
    modes = found["index_put accumulate, many collisions"]["modes"]
    assert modes["True"]["distinct"] == 1 and "error" not in modes["default"]
    assert modes["True"]["to_default"]["median"] > 0


def test_asking_cuda_is_not_work_and_all_else_is():
    work = ["cudaLaunchKernel", "cudaLaunchKernelExC", "cudaDeviceSynchronize", "cuLaunchKernel"]
    work += [
        "cudaMemcpyAsync",
        "cudaMemsetAsync",
        "cudaMalloc",
        "cudaFree",
        "void at::vec_kernel<4>",
    ]
    assert scope_overhead.busy([*work, "cudaStreamIsCapturing", "cudaGetDevice", "cuInit"]) == work


@pytest.mark.slow
def test_scope_overhead_takes_the_ways_of_a_gpu(tmp_path):
    pretend("scope_overhead", "--out", str(tmp_path))
    found = json.loads((tmp_path / "scope_overhead_cuda.json").read_text())
    assert found["cuda_calls"]["scope"] == {}
    assert found["left_unrestored"]["with seeded(1029)"] == []


@pytest.mark.cuda
def test_the_suites_run_on_a_gpu(tmp_path):
    run("determinism_cost", "--device", "cuda", "--quick", "--only", "LSTM", "--out", str(tmp_path))
    run("op_atlas", "--device", "cuda", "--quick", "--only", "index", "--out", str(tmp_path))
    run("scope_overhead", "--device", "cuda", "--quick", "--out", str(tmp_path))
    calls = json.loads((tmp_path / "scope_overhead_cuda.json").read_text())["cuda_calls"]
    assert scope_overhead.busy(calls["scope"]) == [] != scope_overhead.busy(calls["training step"])
    run("report", "--results", str(tmp_path))
    assert "determinism" in (tmp_path / "report.md").read_text()
