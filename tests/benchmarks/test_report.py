"""The report and its figure, from made-up results."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import (
    comparison,
    determinism_cost,
    figure,
    networks,
    record,
    report,
    tables,
)
from benchmarks.determinism_cost import costs as costs_of
from benchmarks.determinism_cost import training
from helpers import MADE_UP, benchmarks_command
from seedscope.costs.configurations import TUNED
from seedscope.costs.measurement import Measurement


def made_up() -> dict[str, Any]:
    return record.read(MADE_UP / "gpu.json")


def test_the_report_shows_all_results_and_names_the_device(tmp_path):
    done = benchmarks_command("report", "--results", str(MADE_UP), "--out", str(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert str(tmp_path / "report.md") in done.stdout
    titles = re.findall("^## .*", text, re.M)
    assert all("MADE UP" in title for title in titles if "Left out" not in title)
    kinds = ["What determinism costs", "Which operations repeat", "Replacements"]
    kinds += ["Attention", "The scope"]
    assert [title[3:].partition(" (")[0] for title in titles[:5]] == kinds
    assert "![time of a step under each setting](gpu.svg)" in text
    assert "| 1.31x, 1/12 |" in text
    assert "| cannot run |" in text
    assert "3/12" in text
    assert "| suggested |" in text
    assert 'deterministic="cudnn", 1.02x' in text
    assert "| FLASH_ATTENTION | 0.95x" in text
    assert "### New input sizes" in text
    assert "clocks held back at times by power" in text
    assert "- attention cudnn 1024 backward (attention): RuntimeError: no kernel" in text
    assert "\n4 operations, 30 runs each" in text
    assert "| ResNet-50 | 90 | 81 |" in text  # the first step of a network
    assert "cumsum: documented to raise under True, and runs" in text
    launch = "| 0.1 | 0.15, launch | 1.50x (1.40 to 1.60) | 10 to 12 |"
    assert f"| adaptive_avg_pool2d, float32 | proved | 30 and 1 {launch}" in text
    assert "| ctc_loss, float32 | refused | 1 and raises | 1 | - |  |  |" in text
    assert "- VGG-19: 2 strict runs gave 1 result(s), under warn 2; a strict step takes" in text
    assert "| test_bad | failed | ValueError: 1 / 2 |" in text
    assert "| flash 1024 backward | 1 ms, 30, 100 MB | 1 ms, 1, 100 MB |" in text
    assert "- benchmark off: LSTM, eval, bf16" in text.partition("## Left out")[2]
    picture = (tmp_path / "gpu.svg").read_text()
    assert picture.startswith("<?xml")
    assert len(picture) > 10_000


def test_the_figure_is_the_same_each_time_and_has_no_background(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        figure.cost_figure(made_up(), tmp_path / name / "gpu.svg")
    one, two = ((tmp_path / name / "gpu.svg").read_text() for name in ("one", "two"))
    assert one == two
    # The figure draws no background, so it is legible on a white page and on a dark page.
    assert "#ffffff" not in one
    assert "#000000" not in one


def test_results_of_the_cpu_come_last_and_say_so(tmp_path):
    on_cpu = made_up() | {"device": "cpu"}
    for name in ("determinism_cost", "op_atlas"):
        (tmp_path / f"{name}_cpu.json").write_text(json.dumps(on_cpu))
    (tmp_path / "gpu_made_up.json").write_text(json.dumps(made_up()))
    report.write(tmp_path, tmp_path)
    titles = re.findall("^## .*", (tmp_path / "report.md").read_text(), re.M)
    assert ["CPU only, small sizes" in title for title in titles[-3:]] == [False, True, True]
    assert titles[0].startswith("## What determinism costs (MADE UP")


def test_a_rehearsal_is_refused_among_published_figures(tmp_path, monkeypatch):
    (tmp_path / "gpu_mine.json").write_text(json.dumps(made_up() | {"quick": True}))
    report.write(tmp_path, tmp_path)  # elsewhere it is allowed
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match=r"gpu_mine\.json is a rehearsal"):
        report.write(tmp_path, tmp_path)


def test_a_run_without_results_has_no_figure_and_no_table(tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps(made_up() | {"found": {}}))
    files = report.write(tmp_path, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert [file.name for file in files] == ["report.md"]
    assert "No network was measured" in text
    assert "|" not in text
    assert "Left out" in text


def test_two_runs_on_one_card_are_compared(tmp_path):
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


def test_the_two_pairs_are_compared_in_time_and_bits():
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


def test_a_failed_network_is_named_and_spares_the_others(capsys):
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
    assert fine["measurements"]
    assert "  ResNet-50, train, bf16: cheapest reproducible setting: " in shown


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


def test_the_figure_fills_a_repeating_cell_by_its_cost():
    def look(configuration, *ratios, digests=("a", "a")):
        return figure._look(Measurement(configuration, [1.0], [[x] for x in ratios], [*digests]))

    fills = [look("deterministic=True", ratio)["facecolor"] for ratio in (1.0, 1.1, 2.0)]
    assert fills == [figure._COLOURS[0][1], figure._COLOURS[1][1], figure._DEAR[0]]
    assert look(TUNED.name, 1.0, 1.0)["facecolor"] == fills[0]
    assert look(TUNED.name, 1.0) == figure._UNSURE  # measured in one process
    assert look("deterministic=True", 1.0, digests="ab") == figure._OUTLINE


def test_the_figure_frames_only_the_suggested_setting():
    drawn: list = []
    axes = SimpleNamespace(add_patch=drawn.append, text=lambda *x, **y: None)
    strict = Measurement("deterministic=True", [1.0], [[1.0]], ["a"])
    figure._cell(axes, strict, 0, 0, is_best=False)
    assert len(drawn) == 1
    figure._cell(axes, strict, 0, 0, is_best=True)
    assert len(drawn) == 3
    assert drawn[2].get_linewidth() == figure._FRAME["linewidth"]


def test_each_network_of_the_figure_has_one_suggestion(monkeypatch, tmp_path):
    report = made_up()
    framed: list = []

    def cell(axes, measured, row, column, is_best):
        framed.extend([(row, measured.configuration)] * is_best)

    monkeypatch.setattr(figure, "_cell", cell)
    figure.cost_figure(report, tmp_path / "gpu.svg")
    best = [cost.cheapest.configuration for cost in training(costs_of(report)).values()]
    assert framed == [*enumerate(best)]
