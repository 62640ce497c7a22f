"""What the pieces of the GPU benchmark measure, and in which order."""

from __future__ import annotations

import torch

from benchmarks import networks
from benchmarks.gpu_pieces import cuda_tests, machine
from benchmarks.items import Scale, Slot
from seedscope import seeded
from seedscope.costs import session
from seedscope.costs.configurations import DEFAULT

SMALL = Scale("cpu", small=True, quick=True)
SLOT = Slot(0.0, lambda found: None)


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


def test_a_copy_counts_the_bytes_that_it_reads_and_writes(monkeypatch):
    monkeypatch.setattr(machine, "_median_ms", lambda call: 1.0)
    with seeded(1029):
        found = machine._canaries(SLOT, SMALL)
    assert found == {"copy_gb_s": 2 * 2**20 / 1e6, "bf16_product_tflop_s": 2 * 256**3 / 1e9}


def test_plans_get_new_shapes_in_the_order_of_their_names(monkeypatch):
    told: dict[int, list[bool]] = {}

    def call_ms(x, weight):
        told.setdefault(x.shape[-1], []).append(torch.backends.cudnn.benchmark)
        return 1.0

    monkeypatch.setattr(machine, "_call_ms", call_ms)
    with seeded(1029):
        names = [*machine._plans(SLOT, SMALL)["ms"]]
    one_of_three = [*told.values()][::3]
    assert one_of_three[0] == [False, True]  # the shape that starts cuDNN
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


def test_only_passed_tests_of_an_earlier_run_are_kept():
    before = {name: {"outcome": name} for name in ("passed", "failed", "skipped", "not ended")}
    results = cuda_tests._Results(Slot(0.0, lambda found: None, {"tests": before}))
    assert [*results.found] == ["passed"]
