"""`python -m benchmarks gpu`: every piece, small, on a pretended GPU."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu as command
from benchmarks import record, report
from benchmarks.gpu_pieces import cuda_tests, machine, scope
from benchmarks.gpu_pieces.pieces import pieces
from benchmarks.gpu_pieces.summary import summary
from benchmarks.models import NAMES
from helpers import MADE_UP, ROOT
from seedscope.costs.configurations import CONFIGURATIONS


def gpu(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "gpu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=560, cwd=ROOT)


def names(content: dict[str, Any]) -> set[str]:
    """The measured items, without those that were cut off."""
    return {
        f"{group}: {name}"
        for group, items in content["found"].items()
        for name, found in items.items()
        if "cut_off" not in found
    }


def test_a_rehearsal_measures_all_and_resuming_fills_the_gaps(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    done = gpu("--rehearse", "--budget", 500, "--out", first)
    assert done.returncode == 0, done.stderr
    content = record.read(first / "gpu.json")
    items = [item for piece in pieces(is_rehearsal=True) for item in piece.items]
    assert names(content) == {*map(str, items)}
    assert content["left_out"] == []

    assert content["device"] == "PRETENDED, no GPU measured this"
    assert done.stdout.startswith("REHEARSAL ON THE CPU: these figures mean nothing\nPRETENDED")
    failed = {
        name: found["failed"]
        for group in content["found"].values()
        for name, found in group.items()
        if "failed" in found
    }
    # The CPU has none of these kernels.
    narrow = [name for name in failed if "not implemented for 'BFloat16'" in failed[name]]
    assert all(name.endswith(", bfloat16") for name in narrow)
    others = {name: why for name, why in failed.items() if name not in narrow}
    lacking = ("attention efficient", "attention cudnn")
    assert all(name.startswith(lacking) and "viable" in others[name] for name in others)
    assert len(others) == 12
    _networks_are_whole(content["found"])
    _others_are_whole(content["found"])

    lines = done.stdout.splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 80
    assert done.stdout.rstrip() == summary(content) == (first / "summary.txt").read_text().rstrip()
    files = {"gpu.json", "gpu.svg", "report.md", "summary.txt"}
    assert {file.name for file in first.iterdir()} == files

    for group, name in (("scope", "training step"), ("benchmark on", "LSTM, train, bf16")):
        del content["found"][group][name]
    content["found"]["machine"]["card"] = {"kept": "from before", "code": "older"}
    (first / "gpu.json").write_text(json.dumps(content))
    done = gpu("--rehearse", "--budget", 100, "--resume", first, "--out", second)
    assert done.returncode == 0, done.stderr
    assert "gpu 2/2" in done.stderr
    again = record.read(second / "gpu.json")
    assert names(again) == {*map(str, items)}
    assert len(again["runs"]) == 2
    assert again["found"]["machine"]["card"]["kept"] == "from before"


def _networks_are_whole(found: dict[str, Any]) -> None:
    order = [*found["benchmark off"]]
    assert order[: len(NAMES)] == [f"{name}, train, bf16" for name in NAMES]
    for process in ("benchmark off", "benchmark on", "benchmark on, again"):
        for session in found[process].values():
            is_on = process != "benchmark off"
            names = [one.name for one in CONFIGURATIONS if one.benchmark == is_on]
            found_names = [one["configuration"] for one in session["measurements"]]
            assert found_names == names
            assert session["canary_ms"]
            assert session["gpu"]["clock_rate"] == 1980
            for measurement in session["measurements"]:
                assert measurement["ms"]
                assert len(measurement["digests"]) == 3
                assert 0 < measurement["peak_mb"] <= 1


def _others_are_whole(found: dict[str, Any]) -> None:
    assert found["machine"]["canaries"]["copy_gb_s"] > 0
    assert len(found["machine"][machine.PLANS]["ms"]) == 5
    outcomes = {
        test["outcome"] for file in found["tests"].values() for test in file["tests"].values()
    }
    assert outcomes == ({"passed"} if torch.cuda.is_available() else {"skipped"})
    operation = found["operations"]["index_put accumulate, many collisions"]["modes"]
    assert operation["True"]["distinct"] == 1
    assert [*operation] == ["default", "True"]
    assert operation["True"]["peak_mb"] == 1
    _replacements_are_whole(found)
    assert found["scope"]["CUDA calls"]["calls"]["scope"] == {}
    assert found["scope"]["SeededDataset"]["us"]["worker"]["SeededDataset"]["median"] > 0
    assert len(found["attention"]) == 24
    assert len(found["new input sizes"]) == 4
    pinned = found["attention of a network"]["GPT-2 small, train, bf16"]["measurements"]
    assert [measurement["configuration"] for measurement in pinned][
        -1
    ] == "MATH, deterministic=True"


def _replacements_are_whole(found: dict[str, Any]) -> None:
    measured = {name: x for name, x in found["replacements"].items() if "failed" not in x}
    # The pretended GPU is a CPU, which has replacements of these alone.
    own = ("put_", "max_unpool2d", "max_unpool3d")
    for name, one in measured.items():
        is_own = name.partition(",")[0] in own
        assert one["state"] == ("proved" if is_own else "torch's own kernel")
        assert one["replaced"]["distinct"] == 1
        assert one["native"]["peak_mb"] == one["replaced"]["peak_mb"] == 1
        assert one["replaced"]["to_native"]["median"] > 0
    assert {name.partition(",")[0] for name in measured} >= {*own, "ctc_loss", "nll_loss2d_forward"}
    for network in found["networks with replacements"].values():
        warned, strict = network["measurements"]
        assert len({*strict["digests"]}) == 1
        assert len(strict["ms"]) == len(warned["ms"]) > 0


def test_a_small_budget_is_kept_and_omitted_items_are_named(tmp_path):
    done = gpu("--rehearse", "--budget", 16, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    content = record.read(tmp_path / "gpu.json")
    (run,) = content["runs"]
    # A busy machine needs the rest to write the files. Without a budget, a run takes minutes.
    assert run["took_s"] < 16 + 44
    items = {str(item) for piece in pieces(is_rehearsal=True) for item in piece.items}
    assert {*content["left_out"]} == items - names(content) != set()
    assert f"left out, for want of time ({len(content['left_out'])})" in done.stdout
    assert "machine: canaries" in names(content)


def test_a_refused_command_leaves_every_file_alone(tmp_path):
    done, other = tmp_path / "done", tmp_path / "other"
    for folder in (done, other):
        folder.mkdir()
        (folder / "gpu.json").write_text((MADE_UP / "gpu.json").read_text())
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "gpu.json").write_text("{")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.json")}
    for arguments, says in (
        (["--out", done], "is there: --resume"),
        (["--out", done, "--resume", done], "its device is MADE UP"),
        (["--resume", done], "its device is MADE UP"),
        (["--out", tmp_path / "new", "--resume", broken], "is not JSON"),
        (["--out", tmp_path / "new", "--resume", tmp_path / "nowhere"], "has no gpu.json: --out"),
        (["--out", done, "--budget", "-5"], "no number of seconds above 0"),
        (["--out", done, "--budget", "abc"], "abc is no number of seconds above 0"),
        (["--out", done / "gpu.json"], "is a file: --out names a folder"),
        ([], "--out DIR says where"),
    ):
        refused = gpu("--rehearse", *arguments)
        assert refused.returncode == 2
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.json")} == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_error_says_how_to_rehearse(tmp_path):
    done = gpu("--out", tmp_path)
    assert done.returncode == 2
    assert "--rehearse runs everything on the CPU" in done.stderr
    assert not [*tmp_path.iterdir()]


def test_only_figures_of_the_same_card_and_versions_are_resumed(tmp_path):
    from benchmarks.gpu import _record

    content = record.read(MADE_UP / "gpu.json")
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "gpu.json").write_text(json.dumps(content))
    facts = {name: content[name] for name in ("device", "torch", "libraries")}
    assert _record(new, old, facts | {"driver": "another"}).found == content["found"]
    for name, other in (
        ("device", "another card"),
        ("torch", ["2.11.0", "13.0", "91900"]),
        ("libraries", {"torchvision": "0", "transformers": "1"}),
    ):
        with pytest.raises(ValueError, match=f"cannot be resumed: its {name} is "):
            _record(new, old, facts | {name: other})
    new.mkdir()
    (new / "gpu.json").write_text("{}")
    with pytest.raises(ValueError, match="is there: name another folder"):
        _record(new, old, facts)


def test_the_pieces_come_in_the_order_of_their_importance():
    found = pieces(is_rehearsal=False)
    order = ["machine", "tests", "networks", "operations", "replacements", "scope", "attention"]
    assert [piece.name for piece in found] == [*order, "what is left"]
    shares = [piece.share_s for piece in found[:-1]]
    assert shares == [20, 72, 200, 75, 40, 30, 60]
    assert sum(shares) < 500
    planned = {piece.name: sum(item.seconds for item in piece.items) for piece in found[:-1]}
    # Nine networks need more than their share on an H200. The other pieces leave them the time.
    assert sum(planned.values()) < 485
    for piece in found[:-1]:
        starts_s = 6 * len({item.process for item in piece.items})
        assert 0 < planned[piece.name] + starts_s <= piece.share_s or piece.name == "networks"
    items = [str(item) for piece in found for item in piece.items]
    assert len(items) == len({*items})
    # Each network is measured whole before the next, in two processes that stay alive.
    assert items[items.index("benchmark off: ViT-B/16, train, bf16") - 1].startswith("benchmark on")


# --------------------------------------------------------------- what the pieces report


ALL_TESTS = [*cuda_tests.items(), *cuda_tests.long_items()]


@pytest.mark.parametrize("item", ALL_TESTS, ids=lambda item: item.name)
def test_the_tests_that_need_a_gpu_need_no_extra(item):
    """Each of their files is collected where only torch and pytest are installed."""
    blocked = ("hypothesis", "sklearn", "rich", "pandas", "albumentations", "xdist", "scipy")
    code = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from benchmarks.gpu_pieces import cuda_tests
from benchmarks.items import Slot
items = [*cuda_tests.items(), *cuda_tests.long_items()]
(item,) = (item for item in items if item.name == {item.name!r})
found = item.measure(Slot(0.0, lambda found: None))["tests"]
assert found
for name, test in found.items():
    assert test["outcome"] in ("passed", "skipped"), (name, test)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_test_is_kept_with_its_outcome_as_it_comes(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.cuda\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'they differ'\n"
        "def test_skipped(): pytest.skip('needs two devices')\n"
        "def test_before(): assert False, 'it has passed in an earlier run'\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cuda\n")
    code = f"""
import json
from benchmarks.gpu_pieces.cuda_tests import _run
from benchmarks.items import Slot
kept = []
before = {{"test_before": {{"outcome": "passed"}}, "test_bad": {{"outcome": "not ended"}}}}
keep = lambda found: kept.append(json.loads(json.dumps(found["tests"])))
slot = Slot(0.0, keep, {{"tests": before}})
found = _run(slot, {str(tmp_path / "test_some.py")!r})
open({str(tmp_path / "found.json")!r}, "w").write(json.dumps([kept, found["tests"]]))
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    kept, found = json.loads((tmp_path / "found.json").read_text())
    outcomes = {name: test["outcome"] for name, test in found.items()}
    assert outcomes.pop("test_before") == "passed"
    assert [*outcomes.values()] == ["passed", "failed", "skipped"]
    assert "they differ" in found["test_bad"]["why"]
    assert found["test_skipped"]["why"] == "Skipped: needs two devices"
    assert kept[0].pop("test_before") == {"outcome": "passed"}
    assert kept[0].keys() == {"test_good"}  # so a test that hangs is known by name
    assert kept[0]["test_good"].keys() == {"outcome", "code"}
    assert kept[0]["test_good"]["outcome"] == "not ended"


def test_a_test_file_that_cannot_be_imported_is_reported(tmp_path):
    (tmp_path / "test_none.py").write_text("import no_such_module\n")
    code = f"""
from benchmarks.gpu_pieces.cuda_tests import _run
from benchmarks.items import Slot
found = _run(Slot(0.0, lambda found: None), {str(tmp_path / "test_none.py")!r})["tests"]
((_, test),) = found.items()
assert test["outcome"] == "not collected" and "no_such_module" in test["why"], test
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def plans(*ms: float) -> list[str]:
    times = {name: {"median": x} for name, x in zip(machine._ORDERS, ms, strict=True)}
    return machine.plan_verdicts({"found": {machine.GROUP: {machine.PLANS: {"ms": times}}}})


def test_times_tell_whether_plans_are_kept():
    kept, chosen = ": kept", ": chosen anew"
    for off_on, on_off, says in ((0.2, 0.2, (kept, kept)), (25, 1.9, (chosen, chosen))):
        sentences = plans(2.0, 30.0, off_on, on_off, 0.2)
        assert all(map(str.__contains__, sentences, says))
        assert "new shape, benchmark on: 30.00 ms" in sentences[-1]
    assert "once it is off: the times do not tell" in plans(0.3, 30.0, 0.2, 0.2, 0.2)[1]
    failed = {"found": {machine.GROUP: {machine.PLANS: {"failed": "RuntimeError: no cuDNN"}}}}
    assert machine.plan_verdicts(failed) == ["cuDNN's plans: RuntimeError: no cuDNN"]


def test_only_queries_of_cuda_do_not_count_as_work():
    work = ["cudaLaunchKernel", "cudaLaunchKernelExC", "cudaDeviceSynchronize", "cuLaunchKernel"]
    work += ["cudaMemcpyAsync", "cudaMemsetAsync", "cudaMalloc", "cudaFree"]
    work += ["void at::vec_kernel<4>"]
    asking = ["cudaStreamIsCapturing", "cudaGetDevice", "cuInit"]
    assert scope.busy([*work, *asking]) == work


def test_the_summary_shows_the_findings_and_fits_a_terminal():
    content = record.read(MADE_UP / "gpu.json")
    text = summary(content)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for says in (
        "MADE UP, no GPU measured this, driver 0 (made up), 2026-01-01",
        "a copy moves 2950 GB/s, a bf16 product runs at 790 TFLOP/s",
        "left out, for want of time (1): benchmark off: LSTM, eval, bf16",
        "tests: 1 passed, 2 failed, 1 skipped, 1 not ended",
        "  failed: test_hung.py: killed after 90 s: it hung",
        "ResNet-50  10*      0.90*  1.02   0.97*   1.30  1.31  1.10    cudnn",
        "DeepLabV3  10*      0.90*  1.02   0.97*   1.30  -     -       cudnn",
        "operations: 4 measured",
        "  run under True and do not repeat (0): none",
        "  do not repeat by default (2): index_add, many collisions; cumsum",
        "replacements: 4 calls measured",
        "  do not repeat in a strict scope (0): none",
        "  were not replaced and proved (1): ctc_loss, float32: seedscope: the",
        "    replacement was refused here: it gave other bits when it ran again",
        "  replacements take 2.75x the time of torch's own (median of 2; 1.50x:",
        "    adaptive_avg_pool2d, float32; 4.00x: put_, bfloat16)",
        "  VGG-19: 2 strict runs gave 1 result(s), under warn 2; a strict step takes 11",
        "    ms, 1.10x that under warn; replaced in it: nll_loss2d_forward 1x",
        "  flash 1024  1        1     1*            1",
        "  by the profiler a scope launches, copies, allocates or waits for: nothing (9",
        "    calls and kernels in a training step)",
    ):
        assert says in lines, says
    assert "held back at times by power" in text
    everything = {str(i): {"failed": f"reason {i}"} for i in range(30)}
    content["found"]["operations"] |= everything
    assert "... and 26 more, in the report" in summary(content)
    content["found"]["benchmark off"] |= {
        f"network {i}": content["found"]["benchmark off"]["ResNet-50, train, bf16"]
        for i in range(100)
    }
    assert len(summary(content).splitlines()) == 100


def damaged(content: dict[str, Any], how: str) -> None:
    networks = content["found"]["benchmark off"]
    if how == "a measurement without its first step":
        del networks["ResNet-50, train, bf16"]["measurements"][0]["first_ms"]
    elif how == "a run that is none":
        content["runs"] = [3]
    else:
        networks["ResNet-50, train, bf16"]["took_s"] = None


@pytest.mark.parametrize(
    "how", ["a measurement without its first step", "a run that is none", "a time that is none"]
)
def test_figures_of_another_form_are_refused_before_measuring(tmp_path, how):
    content = record.read(MADE_UP / "gpu.json")
    damaged(content, how)
    (tmp_path / "gpu.json").write_text(json.dumps(content | {"quick": True}))
    facts = {name: content[name] for name in ("device", "torch", "libraries")}
    with pytest.raises(ValueError, match=r"cannot be read as figures|holds no figures"):
        command._record(tmp_path, tmp_path, facts)


def test_figures_are_shown_whatever_lies_beside_them(tmp_path, capsys):
    (tmp_path / "gpu_old.json").write_text("{")
    kept = record.Record(tmp_path / "gpu.json", {}, record.read(MADE_UP / "gpu.json"))
    command._show(kept)
    assert "MADE UP" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} >= {"gpu.json", "summary.txt", "report.md"}
    del kept.found["scope"]["CUDA calls"]["calls"]["scope"]
    kept.found["new"] = {}
    command._show(kept)
    assert "not all could be written: KeyError" in capsys.readouterr().err
    assert "new" in record.read(kept.file)["found"]


def test_a_terminated_run_shows_its_figures(tmp_path):
    arguments = ["gpu", "--rehearse", "--budget", "100", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    for line in process.stderr:
        if "gpu 4/" in line:
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "gpu: stopped; " in err
    assert "REHEARSAL" in out
    assert (tmp_path / "summary.txt").read_text() == out
    assert "machine: canaries" in names(record.read(tmp_path / "gpu.json"))


def test_a_rehearsal_may_not_write_to_the_published_figures():
    done = gpu("--rehearse", "--out", "benchmarks/results")
    assert done.returncode == 2
    assert "has figures that are published" in done.stderr


def test_a_budget_counts_the_time_before_and_after_measuring(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(command.budget, "run", lambda name, pieces, kept, s: left.append(s))
    monkeypatch.setattr(command, "_show", lambda kept: None)
    properties = SimpleNamespace(uuid="a card")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: properties)
    kept = record.Record(tmp_path / "gpu.json", {"runs": []})
    options = argparse.Namespace(rehearse=True, budget=40.0)
    command._run(kept, {"date": "", "driver": ""}, options, time.monotonic() - 10)
    assert 19 < left[0] <= 20  # ten seconds have passed, and ten are for the report
    assert kept.content["runs"][0]["card"] == "a card"


@pytest.mark.parametrize("how", [{"failed": "it died"}, {"cut_off": True}])
def test_items_are_shown_although_others_fail_or_are_cut_off(how, tmp_path):
    """Each item is lost in turn, then all of them."""
    whole = record.read(MADE_UP / "gpu.json")
    for group, name in [*((g, n) for g in whole["found"] for n in whole["found"][g]), (None, None)]:
        content = record.read(MADE_UP / "gpu.json")
        for each in content["found"]:
            for one in content["found"][each]:
                if name is None or (each, one) == (group, name):
                    content["found"][each][one] = how | {"code": "made up"}
        text = summary(content)
        (tmp_path / "gpu.json").write_text(json.dumps(content))
        if name is None or name in ("ResNet-50, train, bf16", "entry and exit"):
            report.write(tmp_path, tmp_path)
        assert "it died" in text or "cut_off" in how or group == "tests"


def test_a_summary_of_nothing_names_the_machine():
    content = record.read(MADE_UP / "gpu.json") | {"found": {}, "left_out": []}
    assert len(summary(content).splitlines()) == 2
