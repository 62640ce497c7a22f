"""The benchmarks of replacements: the calls, how they are measured, and the suite."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import gate_cost
from benchmarks.gpu_pieces import replaced
from benchmarks.items import Scale
from benchmarks.repeats import same_bits
from benchmarks.replaced_calls import Call, calls
from benchmarks.replaced_times import ALONE, PROVED, REFUSED, measure_call
from helpers import ROOT, benchmarks_command
from seedscope.replacements import kernels
from seedscope.replacements.built_in import BUILT_IN
from seedscope.replacements.registry import exists
from stand_ins import cpu_that_raises

SMALL = Scale("cpu", small=True, quick=True)


def named(name: str) -> Call:
    return next(call for call in calls() if call.name == name)


def of_the_cpu(call: Call) -> Call:
    return replace(call, replacement=call.replacement._replace(devices=("cpu",)))


def test_each_replacement_has_a_call_with_a_name_of_its_own():
    found = calls()
    operations = {call.replacement.operation for call in found}
    assert operations == {one.operation for one in BUILT_IN if exists(one.operation)}
    assert len({call.name for call in found}) == len(found)
    assert named("ctc_loss").dtypes == ("float32",)


def test_inputs_are_the_same_each_time_and_a_call_does_not_change_them():
    for call in calls():
        dtype = call.dtypes[-1]
        first, second = (call.arguments("cpu", dtype, small=True) for _ in range(2))
        call.unchanged(call.replacement.function, first)()
        for one, other in zip(first, second, strict=True):
            if isinstance(one, torch.Tensor):
                assert same_bits(one, other)
                assert one.dtype in (getattr(torch, dtype), torch.int64)
            else:
                assert one == other
    values, *_ = arguments = named("put_").arguments("cpu", "float32", small=True)
    before = values.clone()
    named("put_").unchanged(named("put_").operation, arguments)()
    assert torch.equal(values, before)


def test_where_torch_raises_each_call_is_replaced_proved_and_repeats():
    with cpu_that_raises():
        for call in calls():
            found = measure_call(of_the_cpu(call), "float32", SMALL, runs=2, rounds=2)
            own = call.name == "put_ accumulate"  # a CPU adds in one order, and does not raise
            assert own or found["state"] == PROVED, call.name
            assert found["replaced"]["distinct"] == found["native"]["distinct"] == 1
            assert found["replaced"]["to_native"]["median"] > 0


def test_a_formula_without_a_device_is_called_alone():
    found = measure_call(named("ctc_loss"), "float32", SMALL, runs=2, rounds=2)
    assert found["state"] == ALONE
    assert found["replaced"]["distinct"] == 1


def test_a_refused_replacement_is_told_with_its_reason():
    call = named("reflection_pad1d")
    wrong = call.replacement._replace(function=lambda gradient, inputs, _: inputs + 1)
    with cpu_that_raises((wrong,)):
        call = of_the_cpu(replace(call, replacement=wrong))
        found = measure_call(call, "float32", SMALL, runs=2, rounds=2)
    assert found["state"] == REFUSED
    assert "differs from that of torch's own kernel" in found["replaced"]["note"]
    report = {"found": {replaced.GROUP: {"reflection_pad1d, float32": found}}}
    [_, refused, *_] = replaced.verdicts(report)
    assert refused.startswith("were not replaced and proved (1): reflection_pad1d, float32: seed")


def test_the_items_of_the_gpu_come_in_the_order_of_their_importance():
    items = replaced.items(Scale("cuda"))
    groups = [item.group for item in items]
    first = groups.index(replaced.NETWORKS)
    assert all(item.name.endswith("float32") for item in items[:first])
    assert [item.name for item in items[first : first + 2]] == ["VGG-19", "DeepLabV3"]
    assert all(item.name.endswith("bfloat16") for item in items[first + 2 :])
    assert all(pickle.loads(pickle.dumps(item.measure)) for item in items)


def test_a_closed_gate_is_timed_with_kernels_and_without(monkeypatch):
    seen = []

    def measure(arms, rounds, block_s):
        seen.append(("put_" in arms, bool(kernels._libraries)))
        return {0: {name: [1.0 + seen[-1][1]] * rounds for name in arms}}

    monkeypatch.setattr(gate_cost, "measure", measure)
    found = gate_cost.gate_cost("cpu", rounds=3, block_s=0.001)
    assert sorted(seen) == [(True, False)] * 3 + [(True, True)] * 3
    assert found["put_"]["more_us"]["median"] == 1
    assert found["mm"]["ratio"]["median"] == 2
    assert bool(kernels._libraries) is kernels.IS_SUPPORTED


def test_the_suite_measures_writes_and_fits_a_terminal(tmp_path):
    done = benchmarks_command("replacements", "--quick", "--out", str(tmp_path))
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    assert "a closed gate, put_, us" in done.stdout
    assert "could not be measured here" not in done.stdout
    found = json.loads((tmp_path / "replacements_cpu.json").read_text())
    assert {*found["gate"]} == {"put_", "max_unpool2d", "add", "mm"}
    assert found["scope"]["ratio"]["median"] > 0
    assert found["fresh"]["kernels"] == 5  # put_, and two of unpooling with their out=
    assert not found["fresh"]["cuda_initialised"]
    assert [*found["operations"]] == [f"{call.name}, float32" for call in calls()]
    states = {name: x["state"] for name, x in found["operations"].items()}
    assert states["put_, float32"] == PROVED
    assert states["ctc_loss, float32"] == ALONE


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_suite_says_so():
    command = [sys.executable, "-m", "benchmarks", "replacements", "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "torch finds no CUDA device here" in done.stderr
    assert "Traceback" not in done.stderr
