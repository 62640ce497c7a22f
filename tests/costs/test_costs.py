"""`cost`: which settings repeat, what they cost, and which is recommended."""

from __future__ import annotations

import json
import re

import pytest
import torch

import steps_to_measure
from helpers import seedscope_command
from seedscope import cost, snapshot
from seedscope.costs.configurations import (
    CONFIGURATIONS,
    DEFAULT,
    STRICT,
    UNREPLACED,
    Configuration,
    Effort,
    benchmark_order,
)
from seedscope.costs.measurement import Measurement
from seedscope.costs.result import Cost, combine
from seedscope.costs.session import Session, run_session
from seedscope.support.fresh_process import in_fresh_process


def by_name(found: Cost) -> dict[str, Measurement]:
    return {measured.configuration: measured for measured in found}


def test_a_step_repeats_and_is_timed_under_every_setting():
    before = snapshot()
    found = cost(steps_to_measure.training, quick=True)
    assert before.changed(snapshot()) == ()
    measurements = by_name(found)
    of_cudnn = ("benchmark", '"cudnn"')
    names = {configuration.name for configuration in CONFIGURATIONS}
    without_gpu = {name for name in names if not any(word in name for word in of_cudnn)}
    assert set(measurements) == (names if torch.cuda.is_available() else without_gpu)
    for measured in measurements.values():
        assert measured.repeats
        assert len(measured.digests) == 6
        assert len(measured.ms) == 10
        assert min(measured.ms) > 0
        assert [len(process) for process in measured.ratios] == [5, 5]
        assert measured.interval()[0] <= measured.ratio <= measured.interval()[1]
    assert len({measured.digests[0] for measured in measurements.values()}) == 1
    assert measurements["torch's defaults"].ratios == [[1] * 5] * 2
    assert found.cheapest in measurements.values()


def test_operations_that_were_replaced_are_told_and_no_arm_raises_for_want_of_them():
    found = cost(steps_to_measure.replaced, quick=True)
    measurements = by_name(found)
    assert measurements[STRICT.name].replaced == {"aten::put_": 10}
    assert measurements["torch's defaults"].replaced == {}
    assert UNREPLACED.name not in measurements  # without replacements the step raises
    assert "seedscope replaced aten::put_, 10 calls in a repeat" in str(found)
    assert all(measured.error is None for measured in found)


def test_a_setting_that_ends_a_race_is_recommended():
    found = cost(steps_to_measure.racing, quick=True)
    measurements = by_name(found)
    assert measurements["torch's defaults"].distinct > 1
    assert measurements["deterministic=True"].repeats
    assert found.cheapest.configuration != "torch's defaults"
    assert found.recommendation().startswith("cheapest reproducible setting: deterministic=")
    assert "NO, " in str(found)
    assert "6 of 6 runs in 2 processes gave the same bits" in str(found)


def test_a_setting_that_cannot_run_is_shown_with_its_reason():
    found = cost(steps_to_measure.without_a_deterministic_kernel, quick=True)
    measurements = by_name(found)
    assert (
        "quantized_resize_cpu_ does not have a deterministic"
        in measurements["deterministic=True"].error
    )
    assert measurements['deterministic="warn"'].warned
    assert not measurements["deterministic=True"].repeats
    # The step repeats with the plain settings and with "warn": both may be luck.
    assert found.cheapest.repeats
    assert "though torch warns: quantized_resize_cpu_ does not" in found.recommendation()
    assert "cannot run: quantized_resize" in str(found)
    assert "torch warned: quantized" in str(found)


def test_a_late_failure_is_reported_and_garbage_is_freed():
    effort, configurations = Effort(3, 0.01, 1), [DEFAULT, STRICT]
    found = run_session(steps_to_measure.late, configurations, effort).measurements
    assert found[0].ms
    assert "quantized_resize" in found[1].error
    assert not found[1].ms
    assert not found[1].digests
    once = run_session(steps_to_measure.fails_once, [DEFAULT, STRICT], Effort(3, 0.01, 1, 1))
    assert once.measurements[0].ms
    assert once.measurements[1].error == "once"
    assert not once.measurements[1].ms, "a setting that failed must not run again"
    with pytest.raises(RuntimeError, match=r"called again: StopIteration.*itertools.cycle"):
        run_session(steps_to_measure.ends, configurations, effort)
    run_session(steps_to_measure.cyclic, configurations, effort)
    assert steps_to_measure.most_alive < 300


def test_the_caller_does_not_look_for_a_gpu(monkeypatch):
    # A look would keep processes forked from the caller from using a GPU.
    monkeypatch.setattr(torch.cuda, "is_available", steps_to_measure.asked)
    with pytest.raises(TypeError, match="the step returned None"):
        cost(steps_to_measure.returns_nothing, quick=True)


def test_workers_of_a_step_start_as_they_do_outside():
    import multiprocessing

    method = multiprocessing.get_start_method()
    assert in_fresh_process(multiprocessing.get_start_method) == method


def test_a_step_that_never_repeats_has_no_recommendation():
    found = cost(steps_to_measure.entropy, quick=True)
    assert found.cheapest is None
    assert found.recommendation().startswith(
        "no setting made the step repeat. Make model, optimizer"
    )


@pytest.mark.parametrize(
    ("make_step", "error", "says"),
    [
        (lambda: None, TypeError, "cannot be imported by the processes that run it"),
        (steps_to_measure.returns_nothing, TypeError, "the step returned None"),
        (steps_to_measure.no_step, TypeError, r"no_step\(\) must return a function that.*tensor"),
        (steps_to_measure.a_model, TypeError, "must return a function that takes one step"),
        (steps_to_measure.broken, RuntimeError, "inconsistent tensor size"),
    ],
)
def test_a_function_that_makes_no_working_step_is_refused(make_step, error, says):
    with pytest.raises(error, match=says):
        cost(make_step, quick=True)


def test_a_configuration_sets_its_settings_and_restores_them():
    before = snapshot()
    for configuration in (*CONFIGURATIONS, Configuration("math", True, backend="MATH")):
        with configuration.open():
            assert torch.backends.cudnn.benchmark is configuration.benchmark
            strict = configuration.deterministic in (True, "warn")
            assert torch.are_deterministic_algorithms_enabled() is strict
            assert torch.backends.cudnn.deterministic is (configuration.deterministic is not False)
            assert torch.backends.cuda.flash_sdp_enabled() is (configuration.backend is None)
            if configuration.fill is not None:
                assert torch.utils.deterministic.fill_uninitialized_memory is configuration.fill
        assert before.changed(snapshot()) == ()


def session(benchmark: bool, **ms: float) -> Session:
    measurements = [Measurement(name, ms=[x] * 4, digests=["a"] * 3) for name, x in ms.items()]
    return Session("CPU", benchmark, measurements)


def test_a_process_without_defaults_is_compared_with_the_next():
    default, tuned = "torch's defaults", "cudnn.benchmark = True"
    sessions = [
        session(False, **{default: 10.0, "deterministic=True": 12.0}),
        session(True, **{tuned: 8.0}),
        session(True, **{tuned: 16.0}),
        session(False, **{default: 20.0, "deterministic=True": 26.0}),
    ]
    measurements = {measured.configuration: measured for measured in combine(sessions)}
    assert [*measurements] == [default, tuned, "deterministic=True"]
    assert measurements[tuned].ratios == [[0.8] * 4] * 2
    assert measurements["deterministic=True"].ratios == [[1.2] * 4, [1.3] * 4]
    assert measurements["deterministic=True"].interval() == (1.2, 1.3)  # the processes differ
    assert measurements[tuned].repeats
    assert len(measurements[tuned].digests) == 6


def test_the_processes_run_off_on_on_off():
    assert benchmark_order(True) == [False, True, True, False]
    assert benchmark_order(False) == [False, False]


def of(*measured: tuple[str, float, str, list[str]]) -> Cost:
    found = []
    for name, ratio, digests, warned in measured:
        found.append(Measurement(name, [ratio] * 4, [[ratio] * 4], list(digests), warned=warned))
    return Cost("f", "cpu", found)


def test_the_cheapest_setting_is_the_fastest_that_repeats():
    """Of equally fast settings, it is the strictest."""
    quick = ("torch's defaults", 1.0, "ab", [])
    cudnn = ('deterministic="cudnn"', 1.1, "aa", [])
    strict = ("deterministic=True", 1.105, "aa", [])
    slow = ("deterministic=True, no fill", 1.3, "aa", [])
    assert of(quick, cudnn, strict, slow).cheapest.configuration == "deterministic=True"
    unfilled = ("deterministic=True, no fill", 1.1, "aa", [])
    assert of(quick, strict, unfilled).cheapest.configuration == "deterministic=True"
    once = Measurement("cudnn.benchmark = True", [1], [[0.5] * 4], ["a", "a"])
    assert once.interval() is None  # another process may tune otherwise
    best = Cost("f", "gpu", [once, *of(quick, cudnn)]).cheapest
    assert best.configuration == 'deterministic="cudnn"'
    noisy = Measurement("cudnn.benchmark = True", [1], [[0.7] * 4, [1.2] * 4], ["a", "a"])
    found = Cost("f", "gpu", [noisy, *of(quick, cudnn, strict, slow)])
    assert found.cheapest.configuration == "deterministic=True"  # none is known to be faster
    unsure = Measurement("deterministic=True", [1], [[1.15] * 4, [1.5] * 4], ["a", "a"])
    plain = Measurement("torch's defaults", [1], [[0.9] * 4, [1.2] * 4], ["a", "a"])
    assert Cost("f", "gpu", [plain, unsure]).cheapest is plain  # their intervals barely overlap
    # One round in eight was disturbed: the intervals overlap, but each round has the same order.
    disturbed = [[1.0] * 4, [1.0, 1.0, 1.0, 1.5]]
    unfilled = Measurement("deterministic=True, no fill", [1], disturbed, ["a", "a"])
    filled = [[1.14] * 4, [1.14, 1.14, 1.14, 1.7]]
    filled = Measurement("deterministic=True", [1], filled, ["a", "a"])
    assert unfilled.interval()[1] > filled.ratio
    assert Cost("f", "gpu", [unfilled, filled]).cheapest is unfilled
    pinned = ("MATH", 0.5, "aa", [])  # a backend is not a setting
    assert of(quick, strict, pinned).cheapest.configuration == "deterministic=True"
    assert of(quick, cudnn, slow).cheapest.configuration == 'deterministic="cudnn"'
    warned = ('deterministic="warn"', 1.0, "aa", ["an operation does not repeat"])
    assert of(quick, warned, slow).cheapest.configuration == "deterministic=True, no fill"
    assert (
        of(quick, warned)
        .recommendation()
        .endswith("though torch warns: an operation does not repeat")
    )
    # By default, torch does not check the operation that it warns of: the repeat may be luck.
    repeats = ("torch's defaults", 1.0, "aa", [])
    assert of(repeats, warned, strict).cheapest.configuration == "deterministic=True"
    assert (
        of(repeats, cudnn, warned).recommendation().endswith("warns: an operation does not repeat")
    )


def test_each_process_weighs_the_same_however_many_rounds_it_had():
    found = Measurement("deterministic=True", [1], [[1.0] * 12, [1.4] * 4], ["a", "a"])
    assert found.ratio == pytest.approx(1.2)
    assert found.interval() == pytest.approx((1.0, 1.4))


def test_the_command_prints_the_table_and_json(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nprint('loaded')\ndef make():\n    x = torch.randn(8)\n"
        "    return lambda: print('a step') or x.sum()\n"
        "def fails():\n    def step():\n        raise ValueError('no such data')\n    return step\n"
        "def misses():\n    def step():\n        return {}['labels']\n    return step\n"
    )
    done = seedscope_command("cost", "mine:make", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine:make on ")
    assert "(CPU)" in done.stdout.splitlines()[0]
    assert "cheapest reproducible setting: " in done.stdout.splitlines()[-1]
    assert re.search("seedscope: process 2 of [24]", done.stderr)
    done = seedscope_command("cost", "mine.py:make", "--quick", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert {measurement["distinct"] for measurement in found["measurements"]} == {1}
    assert found["cheapest"]
    done = seedscope_command("cost", "mine:fails", "--quick", cwd=tmp_path)
    assert done.returncode == 2
    assert "line 8, in step" in done.stderr
    assert done.stderr.endswith("mine:fails failed: ValueError: no such data\n")
    done = seedscope_command("cost", "mine:misses", "--quick", cwd=tmp_path)
    assert done.returncode == 2
    assert "in step" in done.stderr
    assert done.stderr.endswith("mine:misses failed: KeyError: 'labels'\n")
    done = seedscope_command("cost", "mine:nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 2
