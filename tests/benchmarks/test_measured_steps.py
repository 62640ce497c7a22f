"""A benchmark measures what its name says: precision, mode, settings, memory, sizes."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import networks, op_atlas, repeats
from benchmarks.gpu_pieces import scope
from benchmarks.items import Scale, Slot
from benchmarks.models import EVALUATION, TF32, TRAINING, Case, Network
from benchmarks.operations.base import Operation
from benchmarks.process import Died, Process
from seedscope import seeded
from seedscope.costs.configurations import DEFAULT, STRICT
from seedscope.costs.measurement import Measurement
from seedscope.costs.session import Session

SMALL = Scale("cpu", small=True, quick=True)
RESNET = TRAINING[0]


def slot(keep=lambda found: None) -> Slot:
    return Slot(0.0, keep)


@pytest.fixture
def forwards(monkeypatch) -> list[dict[str, Any]]:
    """The mode, precision and settings at each forward pass of a measured network."""
    seen = []

    class Watched(Network):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.network.register_forward_pre_hook(self.note)

        def note(self, network: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            x = inputs[0]
            seen.append(
                {
                    "bf16": torch.is_autocast_enabled("cpu")
                    and torch.get_autocast_dtype("cpu") == torch.bfloat16,
                    "precision": torch.get_float32_matmul_precision(),
                    "training": network.training,
                    "gradients": torch.is_grad_enabled(),
                    "channels last": x.dim() == 4
                    and x.is_contiguous(memory_format=torch.channels_last),
                    "strict": torch.are_deterministic_algorithms_enabled(),
                    "height": x.shape[-1],
                }
            )

    monkeypatch.setattr(networks, "Network", Watched)
    return seen


def values(seen: list[dict[str, Any]], name: str) -> set[Any]:
    return {facts[name] for facts in seen}


@pytest.mark.parametrize("case", [RESNET, EVALUATION[0], TF32], ids=lambda case: case.name)
def test_each_setting_keeps_a_networks_mode_and_precision(case: Case, forwards):
    before = torch.get_float32_matmul_precision()
    found = networks.run_case(slot(), case, [DEFAULT, STRICT], SMALL)
    assert torch.get_float32_matmul_precision() == before
    assert found["input"] == [2, 3, 32, 32]
    assert values(forwards, "bf16") == {case.precision == "bf16"}
    assert values(forwards, "precision") == {"high" if case.precision == "tf32" else before}
    assert values(forwards, "training") == {case.mode == "train"}
    assert values(forwards, "gradients") == {case.mode == "train"}
    assert values(forwards, "channels last") == {True}
    assert values(forwards, "strict") == {False, True}


def test_a_step_begins_without_the_gradients_of_the_last_step():
    with seeded(1029):
        built = Network(RESNET, SMALL)
        step = built.restart()
        for group in built._optimizer.param_groups:
            group["lr"] = 0.0  # keeps the weights; a small network has one batch
        gradients = [[x.grad.clone() for x in step().parameters()] for _ in range(2)]
    assert all(map(torch.equal, *gradients))


def test_new_sizes_differ_from_each_other_and_from_training(forwards):
    configuration = networks.Configuration("benchmark off")
    found = networks._new_sizes(slot(), RESNET, configuration, SMALL)
    heights = [facts["height"] for facts in forwards]
    assert len(found["ms"]) == 8
    assert all(len(times) == 3 for times in found["ms"])
    largest, *others = heights
    assert len({*others}) == 8
    assert largest > max(others)
    assert 32 not in others
    assert len(others) == 24
    assert values(forwards, "bf16") == {True}
    full = range(168, 168 + 16 * 8, 16)
    assert not {224, 256, 32} & {*full}


def test_a_step_is_timed_from_an_idle_gpu_to_an_idle_gpu(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("waits"))
    networks._step_ms(lambda: told.append("steps"), Scale("cuda"))
    assert told == ["waits", "steps", "waits"]


def test_a_networks_peak_leaves_out_the_benchmarks_own_copy(monkeypatch):
    found = [Measurement("a", peak_mb=100.0), Measurement("b", peak_mb=None)]
    session = Session("GPU", False, found)

    def run_session(make_step, configurations, effort, keep):
        keep(session)
        return session

    monkeypatch.setattr(networks, "run_session", run_session)
    found = networks.run_case(slot(), RESNET, [DEFAULT], SMALL)
    with seeded(1029):
        kept_mb = Network(RESNET, SMALL).kept_mb
    assert kept_mb > 0.01
    assert [measurement["peak_mb"] for measurement in found["measurements"]] == [
        pytest.approx(100 - kept_mb),
        None,
    ]


def test_the_peak_of_an_operation_is_its_own(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 5e6)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: told.append("reads") or 9e6)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: told.append("resets"))
    assert repeats.peak_mb(lambda: told.append("runs")) == 4.0
    assert told == ["resets", "runs", "reads"]


def test_an_operation_is_run_and_timed_under_each_setting(monkeypatch):
    seen = []

    def make(inputs):
        def call():
            is_strict = torch.are_deterministic_algorithms_enabled()
            seen.append((is_strict, torch.is_deterministic_algorithms_warn_only_enabled()))
            time.sleep(0.004 if is_strict else 0.001)
            # The bits differ each time, unless the setting is strict.
            return torch.tensor([0.0 if is_strict else float(len(seen))])

        return call

    monkeypatch.setattr(op_atlas, "OPERATIONS", [Operation("one", make, ())])
    found = op_atlas.measure_operation(slot(), "one", SMALL)["modes"]
    assert {*seen} == {(False, False), (True, True), (True, False)}
    assert [found[mode]["distinct"] for mode in op_atlas.MODES] == [5, 1, 1]
    assert found["True"]["to_default"]["median"] > 2 > found["default"]["to_default"]["median"]
    report = {"found": {"operations": {"one": {"modes": found}}}}
    assert op_atlas.silent(report) == []
    found["True"]["distinct"] = 2
    assert op_atlas.silent(report) == ["one"]


def test_a_process_killed_while_it_waits_counts_as_dead():
    process = Process()
    try:
        process.start()
        process.wait(time.monotonic() + 60)
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.join()
        with pytest.raises(Died):
            process.measure(slot, slot(), time.monotonic() + 60)
    finally:
        process.end()


def test_results_are_compared_by_their_bits():
    nan, zero = torch.tensor([float("nan")]), torch.zeros(1)
    assert repeats.same_bits(nan, nan.clone())
    assert not repeats.same_bits(zero, -zero)


def test_weights_of_convolutions_have_the_channels_last():
    with seeded(1029):
        network = Network(RESNET, SMALL).network
    weights = [x for x in network.parameters() if x.dim() == 4 and min(x.shape[1:]) > 1]
    layout = torch.channels_last
    assert weights
    assert all(x.is_contiguous(memory_format=layout) for x in weights)
    assert not any(x.is_contiguous() for x in weights)


def test_the_launch_time_of_an_operation_is_that_of_one_call(monkeypatch):
    seconds = itertools.count(0, 3)  # 3 s between two looks at the clock
    clock = SimpleNamespace(monotonic=lambda: 0.0, perf_counter=lambda: float(next(seconds)))
    monkeypatch.setattr(repeats, "time", clock)
    monkeypatch.setattr(repeats, "timed", lambda call, count, is_cuda: lambda: 1.0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    found = {"default": {}}
    ways = {"default": repeats.Way(lambda: None, {"deterministic": False})}
    repeats.take_turns(ways, found, "default", is_cuda=True, rounds=3)
    assert found["default"]["launch_ms"]["median"] == 1000  # three calls in three seconds


def test_the_calls_of_an_empty_profile_are_not_counted(monkeypatch):
    def cuda_calls(body, is_pretended=False):
        is_step = "step" in getattr(body, "__name__", "")
        return Counter({"cudaDeviceSynchronize": 1, "cudaLaunchKernel": 5 * is_step})

    monkeypatch.setattr(scope, "cuda_calls", cuda_calls)
    with seeded(1029):
        calls = scope.calls_of_a_scope("cpu")
    assert calls == {"scope": {}, "training step": {"cudaLaunchKernel": 5}}


@pytest.mark.parametrize(("timing_s", "spare_s"), [(1.2, 0.0), (3.2, 2.0)])
def test_spare_is_the_time_that_timing_did_not_need(monkeypatch, timing_s, spare_s):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(networks, "time", clock)

    def run_session(make_step, configurations, effort, keep):
        clock.now += 10  # for the repeats
        keep(session := Session("GPU", False, []))
        clock.now += timing_s
        return session

    monkeypatch.setattr(networks, "run_session", run_session)
    found = networks.run_case(slot(), RESNET, [DEFAULT, STRICT], SMALL)
    assert found["spare_s"] == pytest.approx(spare_s)
