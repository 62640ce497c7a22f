"""`diagnose` runs a function from one seed, leaves nothing behind, and says what it found."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from differing import EXPECTED
from test_gallery import made
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from traced import trace

from helpers import ROOT
from seedscope import assert_reproducible, current_scope, diagnose, seeded, snapshot
from seedscope.diagnosis.runs import Program
from seedscope.diagnosis.trace import Tables
from seedscope.diagnosis.tracer import Tracer

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


def index_put():
    places = torch.randint(0, 50, (2_000_000,))
    return torch.zeros(50).index_put_((places,), torch.randn(2_000_000), accumulate=True)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def differing():
    return torch.ones(3) * (time.perf_counter_ns() % 1_000_003)


def test_every_run_has_the_seed_and_a_scope_of_its_own():
    seen = []

    def step():
        seen.append((current_scope().seed, torch.rand(1).item(), torch.initial_seed()))

    assert diagnose(step, seed=1029, runs=4).reproducible
    assert len(seen) == 4 + 3, "three without a trace"
    assert {*seen} == {seen[0]}
    assert seen[0][0] == seen[0][2] == 1029
    assert current_scope() is None


def test_arguments_reach_the_function():
    seen = []
    step = functools.partial(lambda *args, **kwargs: seen.append((args, kwargs)), seed=3)
    assert diagnose(step, 1, 2, seed=1, other=5).reproducible
    assert seen[0] == ((1, 2), {"seed": 3, "other": 5})


def test_settings_are_left_alone_by_default_and_strict_if_that_is_asked():
    seen = []
    diagnose(lambda: seen.append(torch.are_deterministic_algorithms_enabled()), seed=1)
    strict = lambda: seen.append(torch.are_deterministic_algorithms_enabled())  # noqa: E731
    diagnose(strict, seed=1, deterministic=True)
    assert seen == [False] * 5 + [True] * 5


@pytest.mark.parametrize("function", [differing, lambda: 1 / 0])
def test_nothing_is_different_afterwards(function, two_threads):
    model = nn.Sequential(nn.Identity(), nn.Dropout())
    model[1].eval()
    hooks = {**nn.modules.module._global_forward_hooks}
    threads, before = threading.enumerate(), snapshot()

    def step(model):
        model.train()
        torch.set_num_threads(1)
        np.random.seed(3)
        torch.use_deterministic_algorithms(True, warn_only=True)
        return function()

    report = diagnose(step, model, seed=1)
    assert not report.reproducible
    assert before == snapshot()
    assert not model[1].training
    assert model[0].training
    assert torch.get_num_threads() == 2
    assert threading.enumerate() == threads
    assert hooks == nn.modules.module._global_forward_hooks
    assert not _get_current_dispatch_mode_stack()
    assert sys.gettrace() is None
    assert sys.getprofile() is None


def test_what_restore_names_is_as_before():
    with seeded(1):
        model = nn.Linear(3, 3)
    weight = model.weight.detach().clone()

    def step(model):
        with torch.no_grad():
            model.weight += 1
        return differing()

    assert not diagnose(step, model, seed=1, restore=[model]).reproducible
    assert torch.equal(model.weight, weight)


def test_an_interrupt_ends_it_and_leaves_nothing():
    def step(values):
        values.add_(1)
        raise KeyboardInterrupt

    values = torch.zeros(3)
    with pytest.raises(KeyboardInterrupt):
        diagnose(step, values, seed=1, restore=[values])
    assert values.sum() == 0
    assert not _get_current_dispatch_mode_stack()


def test_an_error_is_told_with_its_run_and_place():
    def step():
        torch.ones(3).sin()
        raise ValueError("no such file\nsecond line")

    report = diagnose(step, seed=1)
    assert not report.reproducible
    assert report.error.startswith("in run 1, after 2 operations: ValueError: no such file, at ")
    assert "test_diagnose.py:" in report.error
    assert report.first_divergence is None
    assert "raised" in str(report)


def test_an_error_of_one_run_alone_is_told_with_its_cause():
    calls = []

    def step():
        calls.append(1)
        torch.ones(3).sin()
        if len(calls) == 2:
            raise ValueError("the second time")
        return torch.ones(3).cos()

    report = diagnose(step, seed=1)
    assert report.error.startswith("in run 2, after 2 operations: ValueError")
    assert report.first_divergence.paths[1][0] == "its end"
    assert report.cause == "state left from the run before"
    assert "calls" in report.because


def test_an_operation_that_needs_deterministic_settings_is_measured(two_threads):
    report = diagnose(index_put, seed=1, runs=6)
    [remedy] = report.remedies
    assert report.first_divergence.inputs_equal
    assert (remedy.results, remedy.runs) == (1, 5)
    assert remedy.ratio > 0
    assert report.first_divergence.amount.ulp > 0
    assert report.first_divergence.amount.elements == 50


def test_what_does_not_help_is_told_too():
    hidden = []

    @torch.library.custom_op("seedscope_test::restless", mutates_args=())
    def restless(x: torch.Tensor) -> torch.Tensor:
        hidden.append(1)
        return x + len(hidden) % 7

    report = diagnose(lambda: restless(torch.ones(3)), seed=1)
    assert report.cause == "operation"
    assert "10 replays" in report.because
    assert [one.helps for one in report.remedies] == [False, False]
    assert report.advice
    assert "does not help" in str(report)


def test_a_difference_of_later_runs_is_found():
    calls = []

    def step():
        calls.append(1)
        return torch.ones(3) * (len(calls) == 7)

    assert diagnose(step, seed=1).first_divergence is None
    calls.clear()
    assert diagnose(step, seed=1, runs=7).first_divergence.runs == (1, 7)


def test_the_report_has_everything_as_text_html_and_json():
    args, options = made(EXPECTED["system_random"].make)
    report = diagnose(*args, seed=1029, **options)
    content = json.loads(json.dumps(report.as_dict()))
    assert content["cause"] == report.cause == "value from outside"
    assert content["first_divergence"]["operation"] == "aten.mul.Tensor"
    assert content["text"] == str(report)
    assert content["versions"]["torch"] == torch.__version__
    page = report._repr_html_()
    assert "aten.mul.Tensor" in page
    assert "<script" not in diagnose(named_as_a_script, seed=1)._repr_html_()
    assert all(len(line) <= 80 for line in str(report).splitlines())
    assert not report


def named_as_a_script():
    return {"<script>": time.perf_counter()}


def test_assert_reproducible_raises_the_report():
    assert assert_reproducible(lambda: torch.rand(3), seed=1).reproducible
    with pytest.raises(AssertionError, match="not reproducible: 2 runs differ") as caught:
        assert_reproducible(differing, seed=1, runs=2)
    assert caught.value.args[0].first_divergence.operation == "aten.mul.Tensor"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seed": -1}, ValueError, "seed must be in"),
        ({"seed": 1, "runs": 1}, ValueError, "from 2 on"),
        ({"seed": 1, "runs": True}, ValueError, "from 2 on"),
        ({"seed": 1, "deterministic": "strict"}, ValueError, "deterministic"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(options, error, words):
    calls = []
    with pytest.raises(error, match=words):
        diagnose(lambda: calls.append(1), **options)
    assert not calls


async def coroutine():
    raise NotImplementedError


def generator():
    yield


@pytest.mark.parametrize("function", [coroutine, generator, 5])
def test_what_is_no_plain_function_is_refused(function):
    with pytest.raises(TypeError, match=r"function"):
        diagnose(function, seed=1)


def test_a_function_that_is_not_given_its_arguments_is_refused():
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        diagnose(lambda x: x, seed=1)


def test_a_diagnosis_runs_inside_of_a_scope():
    with seeded(5) as scope:
        before = torch.rand(1)
        torch.manual_seed(5)
        assert diagnose(lambda: torch.rand(3), seed=7).reproducible
        assert torch.equal(torch.rand(1), before)
        assert current_scope() is scope


def test_one_process_cannot_show_the_order_of_a_set():
    command = [sys.executable, "-c", SET_ORDER]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
    outputs = [
        subprocess.check_output(command, text=True, cwd=ROOT, env=environment) for _ in range(6)
    ]
    texts = [one.partition("\n") for one in outputs]
    assert len({order for order, _, _ in texts}) > 1, "the order is another in each process"
    for _, _, report in texts:
        assert report.startswith("reproducible")
        assert "one process cannot show the order of sets of strings" in " ".join(report.split())
    fixed = environment | {"PYTHONHASHSEED": "3"}
    text = subprocess.check_output(command, text=True, cwd=ROOT, env=fixed)
    assert "sets of strings" not in " ".join(text.split())


SET_ORDER = """
import torch
from seedscope import diagnose

def step():
    return torch.tensor([ord(name[0]) for name in {"one", "two", "three", "four", "five"}])

print(step().tolist())
print(diagnose(step, seed=1029))
"""


def test_the_lines_of_python_and_numpy_are_named_when_a_run_is_looked_at():
    def step():
        x = np.random.rand()
        return torch.ones(3) * x * (time.perf_counter_ns() % 1_000_003)

    report = diagnose(step, seed=1)
    assert report.sources["numpy"].endswith(f"{os.path.basename(__file__)}:{LINE}")


LINE = test_the_lines_of_python_and_numpy_are_named_when_a_run_is_looked_at.__code__.co_firstlineno
LINE += 2


def test_a_debugger_is_left_alone_and_the_report_says_so():
    def tracer(frame, event, arg):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        report = diagnose(differing, seed=1)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert any("debugger" in note for note in report.notes)


def test_a_source_that_is_seeded_inside_is_told_even_if_runs_are_equal():
    def step():
        np.random.seed(3)
        return torch.tensor(np.random.rand(2))

    report = diagnose(step, seed=1)
    assert report.reproducible
    assert "numpy" in report.seeded_inside
    assert "test_diagnose.py" in report.seeded_inside["numpy"]


def test_what_restore_names_is_compared_as_a_run_leaves_it():
    array = np.zeros(2)
    report = diagnose(lambda: array.__setitem__(0, time.perf_counter()), seed=1, restore=[array])
    assert not report.reproducible
    assert report.first_divergence.what == "restore[0]"
    assert array[0] == 0


def test_a_scheduler_that_is_forgotten_shows_in_the_optimizer():
    with seeded(1):
        model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (epoch + 1))

    def step(model):
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        scheduler.step()

    report = diagnose(step, model, seed=1, restore=[model, optimizer])
    assert report.first_divergence.what == "restore[1]['param_groups'][0]['lr']"
    assert "scheduler" in str(report.remedies[0])
    assert report.remedies[0].helps
    restore = [model, optimizer, scheduler]
    assert diagnose(step, model, seed=1, restore=restore).reproducible


def test_operations_of_one_run_that_write_are_no_trifle():
    weight, calls = torch.zeros(2), []

    def step():
        loss = torch.ones(3).sin()
        calls.append(1)
        if len(calls) % 2 == 0:
            weight.add_(1)
        return loss.cos().tan().relu()

    report = diagnose(step, seed=1)
    assert not report.reproducible
    assert report.first_divergence.paths[1][0] == "aten.add_.Tensor"


def test_operations_of_one_run_that_change_nothing_are_a_note():
    calls = []

    def step():
        loss = torch.ones(3).sin()
        calls.append(1)
        if len(calls) == 1:
            torch.zeros(2)
        return loss.cos().tan().relu()

    report = diagnose(step, seed=1)
    assert report.reproducible
    assert any(
        note.startswith("run 1 alone has 1 operation from aten.zeros") for note in report.notes
    )


def test_what_happens_in_the_first_run_alone_is_told_as_that():
    cache = {}

    def step(values):
        if "scale" not in cache:
            cache["scale"] = torch.rand(3)
        return values * cache["scale"] + torch.rand(3)

    report = diagnose(step, torch.ones(3), seed=1)
    assert report.cause == "state left from the run before"
    assert report.remedies == [], "later runs are equal with any remedy"
    assert "first run alone" in report.advice


def test_what_is_restored_already_is_not_proposed():
    module = nn.Identity()
    module.count = 0

    def step(module, values):
        module.count += 1
        return values * module.count

    report = diagnose(step, module, torch.ones(2), seed=1, restore=[module])
    assert "module.count" in report.because
    assert not report.remedies
    assert "no plain attributes" in report.advice


class Result:
    def __init__(self, value):
        self.parts = {"name": {value, "b"}, "path": Path(f"/tmp/{value}")}


def test_objects_sets_and_paths_are_compared():
    calls = []

    def step():
        calls.append(1)
        return Result(str(len(calls)))

    report = diagnose(step, seed=1)
    assert report.first_divergence.what == "result.parts['name']"
    assert diagnose(lambda: Result("a"), seed=1).reproducible


def test_a_result_without_bits_is_told():
    report = diagnose(object, seed=1)
    assert any("builtins.object" in note for note in report.notes)


raced = []  # results that the operation below has given; empty while a trace slows it down


@torch.library.custom_op("seedscope_test::racing", mutates_args=())
def racing(x: torch.Tensor) -> torch.Tensor:
    if raced:
        raced.append(len(raced))
    return x + len(raced)


def test_a_race_that_a_trace_hides_is_found(monkeypatch):
    """An operation that gives another result each time, but where a trace slows it down."""
    run = Program.run

    def slowed(self, what, *args, **kwargs):
        if "always" not in kwargs:
            raced.clear()
        found = run(self, what, *args, **kwargs)
        raced[:] = [0]
        return found

    monkeypatch.setattr(Program, "run", slowed)
    report = diagnose(lambda: racing(torch.ones(3).sin()), seed=1)
    raced.clear()
    assert not report.reproducible
    assert report.cause == "operation"
    assert report.first_divergence.index == 3
    assert report.first_divergence.operation == "seedscope_test.racing.default"
    assert "4 results in 4 replays" in report.because
    assert any("without one differ" in note for note in report.notes)


def test_a_trace_takes_less_than_200_bytes_of_memory_for_an_operation():
    with seeded(1):
        model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(50)])

    def step():
        for _ in range(10):
            model(torch.ones(2, 8)).sum().backward()

    tables = Tables()
    trace(step, tables)  # the tables and what torch makes once
    tracemalloc.start()
    try:
        with seeded(3, deterministic=False), Tracer(tables) as tracer:
            step()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(tracer.trace) > 3000
    assert size / len(tracer.trace) < 200
