"""How `cost` and the GPU's canaries time: what waits, what is reset, in which order."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from benchmarks import figure, networks
from benchmarks.determinism_cost import costs as costs_of
from benchmarks.determinism_cost import training
from benchmarks.gpu_pieces import cuda_tests, machine
from benchmarks.items import Scale, Slot
from benchmarks.record import read
from seedscope import seeded
from seedscope.costs import session, timing
from seedscope.costs.configurations import DEFAULT, STRICT, TUNED, Effort
from seedscope.costs.measurement import Measurement

SMALL = Scale("cpu", small=True, quick=True)
SLOT = Slot(0.0, lambda found: None)


@pytest.fixture
def told(monkeypatch) -> list:
    """What a GPU would be told, and what else is noted beside it."""
    told: list = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("waits"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: told.append("resets"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: told.append("reads") or 2e6)
    return told


def test_the_first_step_is_timed_alone_and_its_memory_is_not_that_of_the_others(told):
    def make():
        return lambda: told.append("steps") or torch.ones(1)

    found = session._repeat(make, DEFAULT, Effort(repeats=1, steps=2), is_cuda=True)
    assert told == ["resets", "waits", "steps", "waits", "resets", "steps", "reads"]
    assert found.peak_mb == 2.0 and len(found.first_ms) == 1


def test_a_launch_is_asked_of_an_idle_gpu(told):
    timing.launch_ms(lambda: told.append("steps"))
    assert told == ["waits", "steps", "waits"]


def test_events_give_the_milliseconds_of_one_call(monkeypatch):
    class Event(SimpleNamespace):
        def record(self):
            pass

        def elapsed_time(self, other):
            return 30.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert timing.timed(lambda: None, 10, True)() == 3.0


def timed_arms(monkeypatch, rounds: int, configurations: list) -> list:
    told: list = []

    def timed(call, count, is_cuda):
        told.append(torch.are_deterministic_algorithms_enabled())
        return lambda: 1.0

    monkeypatch.setattr(session, "steps_for", lambda *arguments: 1)
    monkeypatch.setattr(session, "timed", timed)

    def make():
        return lambda: told.append("steps") or torch.ones(1)

    session.run_session(make, configurations, Effort(rounds, 0.01, repeats=1, steps=1))
    return told


def test_a_step_that_is_not_timed_follows_each_change_of_settings(monkeypatch):
    # The repeat, the step after the change, the configuration, and the product beside it.
    assert timed_arms(monkeypatch, 1, [DEFAULT]) == ["steps", "steps", False, False]


def test_the_settings_take_turns_in_another_order_each_round(monkeypatch):
    told = [x for x in timed_arms(monkeypatch, 8, [DEFAULT, STRICT]) if x != "steps"]
    rounds = {*zip(told[::3], told[1::3], strict=True)}  # the third of each is the product
    assert rounds == {(False, True), (True, False)}


def test_the_libraries_are_loaded_before_the_first_network(monkeypatch):
    told = []
    monkeypatch.setattr(networks, "_start_libraries", lambda scale: told.append("libraries"))
    monkeypatch.setattr(
        networks,
        "run_session",
        lambda *arguments: told.append("session") or session.Session("", False, []),
    )
    networks.run_case(SLOT, networks.Case("U-Net"), [DEFAULT], SMALL)
    assert told == ["libraries", "session"]
    assert networks.FIRST_PAIR == ["benchmark off", "benchmark on"]


def test_each_of_three_steps_at_a_new_size_has_its_own_time(monkeypatch):
    count = iter(range(99))
    monkeypatch.setattr(networks, "_step_ms", lambda *arguments: next(count))
    found = networks._new_sizes(SLOT, networks.Case("U-Net"), DEFAULT, SMALL)
    assert found["ms"] == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(8)]


def test_a_copy_counts_what_it_reads_and_what_it_writes(monkeypatch):
    monkeypatch.setattr(machine, "_median_ms", lambda call: 1.0)
    with seeded(1029):
        found = machine._canaries(SLOT, SMALL)
    assert found == {"copy_gb_s": 2 * 2**20 / 1e6, "bf16_product_tflop_s": 2 * 256**3 / 1e9}


def test_plans_are_asked_for_of_shapes_that_are_new_in_the_order_that_the_name_says(monkeypatch):
    told: dict[int, list[bool]] = {}

    def call_ms(x, weight):
        told.setdefault(x.shape[-1], []).append(torch.backends.cudnn.benchmark)
        return 1.0

    monkeypatch.setattr(machine, "_call_ms", call_ms)
    with seeded(1029):
        names = [*machine._plans(SLOT, SMALL)["ms"]]
    one_of_three = [*told.values()][::3]
    assert one_of_three[0] == [False, True]  # what starts cuDNN
    assert dict(zip(names, one_of_three[1:], strict=True)) == {
        "new shape, benchmark off": [False],
        "new shape, benchmark on": [True],
        "on, after it was used with off": [False, True],
        "off, after it was used with on": [True, False],
        "a known shape": [False, False],
    }


def test_a_call_of_a_plan_is_timed_to_its_end(told, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *x, **y: told.append("convolves"))
    machine._call_ms(torch.ones(1), torch.ones(1))
    assert told == ["waits", "convolves", "waits"]


def test_of_tests_that_ran_before_only_those_that_passed_are_kept():
    before = {name: {"outcome": name} for name in ("passed", "failed", "skipped", "not ended")}
    results = cuda_tests._Results(Slot(0.0, lambda found: None, {"tests": before}))
    assert [*results.found] == ["passed"]


def test_the_figure_fills_what_repeats_by_what_it_costs():
    def look(configuration, *ratios, digests=("a", "a")):
        return figure._look(Measurement(configuration, [1.0], [[x] for x in ratios], [*digests]))

    fills = [look("deterministic=True", ratio)["facecolor"] for ratio in (1.0, 1.1, 2.0)]
    assert fills == [figure._COLOURS[0][1], figure._COLOURS[1][1], figure._DEAR[0]]
    assert look(TUNED.name, 1.0, 1.0)["facecolor"] == fills[0]
    assert look(TUNED.name, 1.0) == figure._UNSURE  # in one process
    assert look("deterministic=True", 1.0, digests="ab") == figure._OUTLINE


def test_the_figure_frames_what_is_suggested_and_nothing_else():
    drawn: list = []
    axes = SimpleNamespace(add_patch=drawn.append, text=lambda *x, **y: None)
    strict = Measurement("deterministic=True", [1.0], [[1.0]], ["a"])
    figure._cell(axes, strict, 0, 0, is_best=False)
    assert len(drawn) == 1
    figure._cell(axes, strict, 0, 0, is_best=True)
    assert len(drawn) == 3 and drawn[2].get_linewidth() == figure._FRAME["linewidth"]


def test_each_network_of_the_figure_has_one_suggestion(monkeypatch, tmp_path):
    report = read(ROOT / "tests" / "made_up_results" / "gpu.json")
    framed: list = []

    def cell(axes, measured, row, column, is_best):
        framed.extend([(row, measured.configuration)] * is_best)

    monkeypatch.setattr(figure, "_cell", cell)
    figure.cost_figure(report, tmp_path / "gpu.svg")
    best = [cost.cheapest.configuration for cost in training(costs_of(report)).values()]
    assert framed == [*enumerate(best)]
