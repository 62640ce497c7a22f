"""The networks of the benchmarks restart as they were built."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import (
    networks,
)
from benchmarks.items import Scale, Slot
from benchmarks.models import EVALUATION, LARGE, TF32, TRAINING, Network
from helpers import skip_where_the_cpu_has_no_lstm_in_bf16
from seedscope import seeded
from seedscope.costs.configurations import DEFAULT, STRICT


@pytest.mark.parametrize("case", [*TRAINING, TF32, LARGE, *EVALUATION], ids=lambda case: case.name)
def test_a_restarted_network_is_the_network_that_was_built(case):
    if case.name.startswith("LSTM"):
        skip_where_the_cpu_has_no_lstm_in_bf16()
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
    assert all(map(torch.equal, *again))
    assert len(again[0]) > 0
    assert built.kept_mb > 0


def test_restart_brings_back_the_weights_that_a_step_changes():
    with seeded(1029):
        built = Network(TRAINING[0], Scale("cpu", small=True))
        before = [x.clone() for x in built.network.state_dict().values()]
        built.restart()()
    assert not all(map(torch.equal, before, built.network.state_dict().values()))
    built.restart()
    assert all(map(torch.equal, before, built.network.state_dict().values()))


def test_timing_ends_with_its_slot_after_the_repeats_are_kept():
    kept = []
    slot = Slot(until=0.0, keep=lambda found: kept.append(json.loads(json.dumps(found))))
    scale = Scale("cpu", small=True)
    found = networks.run_case(slot, TRAINING[0], [DEFAULT, STRICT], scale)
    assert [len(measurement["ms"]) for measurement in found["measurements"]] == [6, 6]  # not 12
    assert [measurement["digests"] for measurement in kept[0]["measurements"]] == [
        measurement["digests"] for measurement in found["measurements"]
    ]
    assert not any(measurement["ms"] for measurement in kept[0]["measurements"])


@pytest.mark.slow
def test_the_real_networks_take_a_step(monkeypatch):
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
