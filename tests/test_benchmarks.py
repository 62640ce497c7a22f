"""The benchmark suites, and the report: small, on the CPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from benchmarks import (
    comparison,
    determinism_cost,
    figure,
    harness,
    networks,
    op_atlas,
    record,
    report,
    tables,
)
from benchmarks.items import Scale, Slot
from benchmarks.models import EVALUATION, LARGE, TF32, TRAINING, Network
from benchmarks.operations.catalogue import ATTENTION, OPERATIONS
from seedscope import seeded
from seedscope.costs.configurations import DEFAULT, STRICT

# Figures that nobody measured: they are there to be drawn.
MADE_UP = Path(__file__).parent / "made_up_results"


def made_up() -> dict[str, Any]:
    return record.read(MADE_UP / "gpu.json")


def run(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        # Two threads wait for each other where the CPU has other tests to run.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_suites_are_listed():
    shown = run().stdout
    for name in ("gpu", "determinism_cost", "op_atlas", "scope_overhead", "report"):
        assert f"  {name}: " in shown


def test_determinism_cost_measures_and_writes(tmp_path):
    done = run("determinism_cost", "--quick", "--only", "LSTM", "--out", str(tmp_path))
    assert "4/4" in done.stderr and "s left" in done.stderr
    assert "summary, on cpu, small sizes" in done.stdout
    assert [*tmp_path.iterdir()] == [tmp_path / "determinism_cost_cpu.json"]
    found = record.read(tmp_path / "determinism_cost_cpu.json")
    assert found["device"] == "cpu" and found["versions"]["torch"]
    assert [*found["found"]] == ["benchmark off", "benchmark off, again"]
    for process in found["found"].values():
        assert [*process] == ["LSTM, train, bf16", "LSTM, eval, bf16"]
        for session in process.values():
            assert session["canary_ms"] and session["benchmark"] is False
            assert "small" in session["origin"]
            for measurement in session["measurements"]:
                assert (
                    len(measurement["digests"]) == 3
                    and measurement["ms"]
                    and len(measurement["first_ms"]) == 1
                )
    for cost in determinism_cost.costs(found).values():
        assert all(measured.repeats for measured in cost)
        assert re.search("(all 6|6 of 6) runs", cost.recommendation())  # of both processes


def test_the_atlas_measures_writes_and_knows_the_lists(tmp_path):
    done = run("op_atlas", "--quick", "--only", "put", "--out", str(tmp_path))
    assert "op_atlas on cpu, small sizes, distinct results of 5 runs" in done.stdout
    found = op_atlas.measured(record.read(tmp_path / "op_atlas_cpu.json"))
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


def test_operations_that_may_not_repeat_come_first():
    first, others = op_atlas.by_importance(OPERATIONS)
    names = [operation.name for operation in first]
    assert {operation.name for operation in [*first, *others]} == {x.name for x in OPERATIONS}
    alerted, documented = names.index("ctc_loss backward"), names.index("conv2d 3x3, forward")
    assert alerted < documented < len(names)
    on_cpu = op_atlas.measured(record.read(op_atlas.CPU_RESULTS))
    differ = {name for name, x in on_cpu.items() if x["modes"]["default"].get("distinct", 1) > 1}
    assert differ and differ <= {*names}
    assert "sum" in {operation.name for operation in others} >= {x.name for x in ATTENTION}


@pytest.mark.parametrize(
    ("arguments", "folder"), [([], "results"), (["--quick"], "looks"), (["--only", "x"], "looks")]
)
def test_a_look_does_not_take_the_place_of_the_figures(arguments, folder):
    parser = harness.suite_parser("x", None)
    parser.add_argument("--only", default="")
    assert harness.parse(parser, arguments).out.name == folder


def test_what_is_not_there_is_one_line_and_exit_code_2(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "gpu.json").write_text("{")
    commands = [["report", "--results", str(tmp_path)], ["report", "--results", str(broken)]]
    commands += [["determinism_cost", "--only", "nothing"], ["op_atlas", "--only", "nothing"]]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *command], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr


# ------------------------------------------------------------------------ networks


@pytest.mark.parametrize("case", [*TRAINING, TF32, LARGE, *EVALUATION], ids=lambda case: case.name)
def test_a_network_that_starts_again_is_the_one_that_was_built(case):
    with seeded(1029):
        built, again = Network(case, Scale("cpu", small=True)), []
    for _ in range(2):
        with seeded(1029):
            step = built.restart()
            outputs = [step() for _ in range(2)]
        state = built.network.state_dict().values()
        again.append([x.clone() for x in (outputs[-1:] if case.mode == "eval" else state)])
        if case.mode == "train":
            assert all(parameter.grad is not None for parameter in built.network.parameters())
            again[-1] += [parameter.grad.clone() for parameter in built.network.parameters()]
    assert all(map(torch.equal, *again)) and len(again[0]) > 0
    assert built.kept_mb > 0


def test_a_training_step_changes_the_weights_that_restart_brings_back():
    with seeded(1029):
        built = Network(TRAINING[0], Scale("cpu", small=True))
        before = [x.clone() for x in built.network.state_dict().values()]
        built.restart()()
    assert not all(map(torch.equal, before, built.network.state_dict().values()))
    built.restart()
    assert all(map(torch.equal, before, built.network.state_dict().values()))


def test_timing_ends_with_its_slot_and_the_repeats_are_kept_before_it():
    kept = []
    slot = Slot(until=0.0, keep=lambda found: kept.append(json.loads(json.dumps(found))))
    scale = Scale("cpu", small=True)
    found = networks.run_case(slot, TRAINING[0], [DEFAULT, STRICT], scale)
    assert [len(measurement["ms"]) for measurement in found["measurements"]] == [6, 6]  # and not 12
    assert [measurement["digests"] for measurement in kept[0]["measurements"]] == [
        measurement["digests"] for measurement in found["measurements"]
    ]
    assert not any(measurement["ms"] for measurement in kept[0]["measurements"])


@pytest.mark.slow
def test_the_networks_themselves_take_a_step(monkeypatch):
    pytest.importorskip("torchvision")
    pytest.importorskip("transformers")
    from benchmarks import models

    monkeypatch.setattr(models, "_TOKENS", dict.fromkeys(models._TOKENS, (50257, 1, 16)))
    monkeypatch.setitem(models._LLAMA, "vocab_size", 50257)
    monkeypatch.setitem(models._LLAMA, "num_hidden_layers", 1)
    make = models._input

    def small_input(model, small, size):
        x = make(model, small, None if model == "ViT-B/16" else 64)
        return x[:2]

    monkeypatch.setattr(models, "_input", small_input)
    for case in (*TRAINING, LARGE):
        network = Network(case, Scale("cpu"))
        assert isinstance(network.restart()(), torch.nn.Module), case


# ---------------------------------------------------------------------- the report


def test_the_report_draws_what_there_is_and_names_the_device(tmp_path):
    done = run("report", "--results", str(MADE_UP), "--out", str(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert str(tmp_path / "report.md") in done.stdout
    titles = re.findall("^## .*", text, re.M)
    assert all("MADE UP" in title for title in titles if "Left out" not in title)
    kinds = ["What determinism costs", "Which operations repeat", "Attention", "The scope"]
    assert [title[3:].partition(" (")[0] for title in titles[:4]] == kinds
    assert "![time of a step under each setting](gpu.svg)" in text
    assert "| 1.31x, 1/12 |" in text and "| cannot run |" in text and "3/12" in text
    assert "| suggested |" in text and 'deterministic="cudnn", 1.02x' in text
    assert "| FLASH_ATTENTION | 0.95x" in text and "### New input sizes" in text
    assert "clocks held back at times by power" in text
    assert "- attention cudnn 1024 backward (attention): RuntimeError: no kernel" in text
    assert "\n4 operations, 30 runs each" in text
    assert "| ResNet-50 | 90 | 81 |" in text  # the first step of a network
    assert "cumsum: documented to raise under True, and runs" in text
    assert "| test_bad | failed | ValueError: 1 / 2 |" in text
    assert "| flash 1024 backward | 1 ms, 30, 100 MB | 1 ms, 1, 100 MB |" in text
    assert "- benchmark off: LSTM, eval, bf16" in text.partition("## Left out")[2]
    picture = (tmp_path / "gpu.svg").read_text()
    assert picture.startswith("<?xml") and len(picture) > 10_000


def test_the_figure_is_the_same_each_time_and_has_no_background(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        figure.cost_figure(made_up(), tmp_path / name / "gpu.svg")
    one, two = ((tmp_path / name / "gpu.svg").read_text() for name in ("one", "two"))
    assert one == two
    # Legible on a white page and on a dark one: neither is drawn.
    assert "#ffffff" not in one and "#000000" not in one


def test_what_the_cpu_measured_comes_last_and_says_so(tmp_path):
    on_cpu = made_up() | {"device": "cpu"}
    for name in ("determinism_cost", "op_atlas"):
        (tmp_path / f"{name}_cpu.json").write_text(json.dumps(on_cpu))
    (tmp_path / "gpu_made_up.json").write_text(json.dumps(made_up()))
    report.write(tmp_path, tmp_path)
    titles = re.findall("^## .*", (tmp_path / "report.md").read_text(), re.M)
    assert ["CPU only, small sizes" in title for title in titles[-3:]] == [False, True, True]
    assert titles[0].startswith("## What determinism costs (MADE UP")


def test_a_rehearsal_is_no_figure_to_publish(tmp_path, monkeypatch):
    (tmp_path / "gpu_mine.json").write_text(json.dumps(made_up() | {"quick": True}))
    report.write(tmp_path, tmp_path)  # to be looked at
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match=r"gpu_mine\.json is a rehearsal"):
        report.write(tmp_path, tmp_path)


def test_a_run_that_measured_nothing_has_no_figure_and_no_empty_table(tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps(made_up() | {"found": {}}))
    files = report.write(tmp_path, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert [file.name for file in files] == ["report.md"] and "No network was measured" in text
    assert "|" not in text and "Left out" in text


def test_two_runs_on_one_card_are_set_beside_each_other(tmp_path):
    slower = made_up()
    for measurement in slower["found"]["benchmark off"]["ResNet-50, train, bf16"]["measurements"]:
        if measurement["configuration"] == "deterministic=True":
            measurement["ms"] = [ms * 1.5 for ms in measurement["ms"]]
    for name, content in (("gpu_1", made_up()), ("gpu_2", slower)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    report.write(tmp_path, tmp_path)
    _, _, text = (tmp_path / "report.md").read_text().partition("## Two runs (MADE UP")
    (sentence,) = re.findall("- the same .* ratios to torch's defaults .*", text)
    assert "differ by 0.0% in the median" in sentence
    assert "25.0% at most (ResNet-50, train, bf16, deterministic=True)" in sentence
    assert re.search("of [0-9]+ cells that repeat in both, [0-9]+ have the same bits\n", text)
    assert comparison.two_runs(made_up(), made_up() | {"found": {}}) == ""


def test_the_second_pair_of_processes_is_set_beside_the_first_in_time_and_bits():
    report_ = made_up()
    again = report_["found"]["benchmark off, again"]["ResNet-50, train, bf16"]
    for measurement in again["measurements"]:
        if measurement["configuration"] == "deterministic=True":
            measurement["ms"] = [ms * 1.2 for ms in measurement["ms"]]
            measurement["digests"] = ["other bits"] * len(measurement["digests"])
    text = comparison.two_pairs(report_)
    assert text.startswith("## The second pair of processes (MADE UP")
    assert "times of a step by default differ by 0.0% in the median" in text
    assert "20.0% at most (ResNet-50, train, bf16, deterministic=True)" in text
    assert "; not so: ResNet-50, train, bf16, deterministic=True" in text
    pairs = [
        determinism_cost.costs(report_, x) for x in (networks.FIRST_PAIR, networks.SECOND_PAIR)
    ]
    repeat = [
        {(n, m.configuration) for n in pair for m in pair[n] if m.repeats and m.ms}
        for pair in pairs
    ]
    assert f"of {len(repeat[0] & repeat[1])} cells that repeat in both" in text
    del report_["found"]["benchmark off, again"], report_["found"]["benchmark on, again"]
    assert comparison.two_pairs(report_) == ""


def test_a_network_that_failed_is_named_and_costs_the_others_nothing(capsys):
    report_ = made_up()
    fine = report_["found"]["benchmark off"]["ResNet-50, train, bf16"]
    report_["found"]["benchmark off"]["LSTM"] = {"failed": "ValueError: no such layer"}
    report_["found"]["benchmark off"]["ViT-B/16, train, bf16"] = {"failed": "it hung"}
    cost = determinism_cost.costs(report_)["ViT-B/16, train, bf16"]
    assert [measured.ratio for measured in cost if measured.ms]  # from the other processes
    assert "LSTM (benchmark off): ValueError: no such layer" in tables.cost_tables(report_)
    determinism_cost.show_report(report_ | {"device": "cpu"})
    shown = capsys.readouterr().out
    assert "  LSTM (benchmark off): ValueError: no such layer" in shown
    assert (
        fine["measurements"]
        and "  ResNet-50, train, bf16: cheapest reproducible setting: " in shown
    )


def test_prices_are_those_of_one_setting_alone():
    found = determinism_cost.training(determinism_cost.costs(made_up()))
    assert determinism_cost.repeat_sentences(found) == [
        "torch's defaults: 3 of 3 networks do not repeat: ResNet-50; ViT-B/16; DeepLabV3",
        "deterministic=True: all 2 networks that run repeat",
    ]
    tuned, filled = determinism_cost.price_sentences(found)
    assert tuned.startswith("cudnn.benchmark = False takes 1.11x the time of cudnn.benchmark = T")
    assert filled.startswith("filling new memory under deterministic=True takes 1.19x the time of")
    (refused,) = determinism_cost.refusals(found)
    assert refused.startswith("DeepLabV3 cannot run under deterministic=True: upsample_bilinear2d_")
