"""Programs and values that a diagnosis could stumble over, each seen to do so once."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from traced import trace, traces

from seedscope import diagnose, seeded
from seedscope.diagnosis.compare import first_difference
from seedscope.diagnosis.modes import read_modes
from seedscope.diagnosis.trace import Tables


def linear(*sizes, **options):
    with seeded(1):
        return nn.Linear(*sizes, **options)


# --------------------------------------------------------------- memory that is not there


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_tensors_without_memory_of_their_own_are_read():
    assert diagnose(lambda: torch._efficientzerotensor(3).sin(), seed=1).reproducible
    hessian = torch.func.hessian(lambda y: (y**3).sum())
    assert diagnose(hessian, torch.ones(3), seed=1).reproducible
    with seeded(1):
        x = torch.ones(2)
    assert diagnose(lambda: torch.func.jvp(torch.sin, (x,), (x,)), seed=1).reproducible


def test_memory_that_was_freed_is_not_read():
    weight = torch.ones(3)
    weight.untyped_storage().resize_(0)
    assert diagnose(lambda: weight.shape, seed=1).reproducible


def test_buffers_that_are_written_in_part_are_no_difference():
    places = torch.arange(0, 5000, 7)

    def step():
        memory = torch.empty(5000)
        memory[places] = torch.ones(len(places))
        memory.index_fill_(0, places, 2.0)
        return memory[places].sum()

    assert first_difference(*traces(step)) is None


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantisation_is_no_difference():
    with seeded(1):
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    assert diagnose(model, torch.ones(2, 4), seed=1).reproducible


def test_a_resize_that_changes_nothing_leaves_the_state_known():
    x = torch.zeros(3)
    report = diagnose(lambda: x.resize_(3).add_(1), seed=1)
    assert report.cause == "state left from the run before"
    assert "x" in report.because


# -------------------------------------------------------------------------- caches in layers


class Cached(nn.Module):
    table = None

    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(4).cos()
        return x * self.table + 1


def test_tables_that_each_layer_makes_once_are_harmless():
    report = diagnose(nn.Sequential(*[Cached() for _ in range(6)]), torch.ones(4), seed=1)
    assert report.reproducible, report
    assert any("run 1 alone has" in note for note in report.notes)


def test_many_added_operations_are_aligned_in_little_time():
    def step(more):
        x = torch.ones(3)
        for _ in range(500):
            x = (x + 0.5) * 0.5
            if more:
                torch.zeros(2)
        return x

    tables = Tables()
    one, other = trace(lambda: step(True), tables), trace(lambda: step(False), tables)
    began = time.perf_counter()
    assert first_difference(one, other).is_harmless
    assert time.perf_counter() - began < 5


# ------------------------------------------------------------------------ what restore keeps


def test_a_gradient_that_is_a_view_stays_one():
    model, flat = linear(2, 2, bias=False), torch.zeros(4)
    model.weight.grad = flat.view(2, 2)

    def step(model, values):
        flat.zero_()
        model(values).sum().backward()
        return flat.norm()

    expected = step(model, torch.ones(1, 2))
    assert diagnose(step, model, torch.ones(1, 2), seed=1, restore=[model]).reproducible
    assert step(model, torch.ones(1, 2)) == expected != 0


def test_the_tensors_of_an_optimizer_stay_the_same_objects():
    rate, model = torch.tensor(0.1), linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def step(model, optimizer):
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        rate.mul_(0.5)

    for _ in range(2):
        report = diagnose(step, model, optimizer, seed=1, restore=[model, optimizer])
        assert report.reproducible, report
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate == torch.tensor(0.1)


def test_a_dtype_and_a_frozen_weight_are_put_back():
    model = linear(2, 2)

    def step(model):
        model.requires_grad_(False)
        model.double()
        return model.weight.sum()

    assert diagnose(step, model, seed=1, restore=[model]).reproducible
    assert model.weight.dtype == torch.float32
    assert model.weight.requires_grad


def test_parts_that_a_run_adds_to_a_module_are_taken_out():
    model = nn.Sequential(linear(2, 2), nn.Identity())
    head, weight = model[1], model[0].weight

    def step(model):
        model[1] = nn.ReLU()
        model[0].weight = nn.Parameter(torch.zeros(2, 2))
        model.register_buffer("late", torch.ones(2))
        return model(torch.ones(2))

    assert diagnose(step, model, seed=1, restore=[model]).reproducible
    assert model[1] is head
    assert model[0].weight is weight
    assert [*dict(model.named_buffers())] == []


class Slow(torch.optim.SGD):
    """An optimizer with a state of its own."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1)
        self.steps = 0

    def step(self, closure=None):
        self.steps += 1
        return super().step(closure)

    def state_dict(self):
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict):
        self.steps = state_dict["steps"]
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "steps"})


def test_an_optimizer_with_a_state_of_its_own_is_restored_by_that():
    model = linear(2, 2)
    optimizer = Slow(model.parameters())

    def step(model):
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        return optimizer.steps

    assert diagnose(step, model, seed=1, restore=[model, optimizer]).reproducible
    assert optimizer.steps == 0


def test_a_graph_that_was_built_before_stays_usable():
    weight = torch.ones(2, requires_grad=True)
    loss = (weight**2).sum()

    def step():
        return torch.autograd.grad(loss, weight, retain_graph=True)[0]

    assert diagnose(step, seed=1, restore=[weight]).reproducible


def test_what_cannot_be_put_back_is_refused_before_a_run():
    calls = []
    with pytest.raises(TypeError, match="repeats its memory"):
        diagnose(lambda: calls.append(1), seed=1, restore=[torch.ones(1).expand(4)])
    assert not calls


# --------------------------------------------------------------------- modes of the process


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda: torch.set_grad_enabled(False), "torch.is_grad_enabled()"),
        (lambda: torch.set_default_dtype(torch.float64), "torch.get_default_dtype()"),
        (lambda: torch.set_default_device("meta"), "torch.get_default_device()"),
        (lambda: torch.autograd.set_detect_anomaly(True), "torch.is_anomaly_enabled()"),
        (lambda: np.seterr(all="ignore"), "np.geterr()"),
    ],
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_a_mode_that_a_run_leaves_changed_is_named_and_put_back(change, name):
    before, calls = read_modes(), []

    def step():
        calls.append(1)
        scale = float(len(calls)) if name in ("np.geterr()", "torch.is_anomaly_enabled()") else 1.0
        result = torch.ones(2, requires_grad=True) * scale
        result = (result.sin() if torch.is_grad_enabled() else result.cos()) * scale
        change()
        return result

    report = diagnose(step, seed=1)
    assert not report.reproducible
    assert name in report.because + " ".join(report.changed)
    assert read_modes() == before


def test_a_parameter_with_the_name_of_the_function_is_put_back():
    net = nn.Dropout()

    def model(model):
        model.eval()

    diagnose(model, net, seed=1)
    assert net.training


# ------------------------------------------------------------------------- what is compared


def test_long_keys_and_the_form_of_containers_are_compared():
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default."
    long_keys = lambda: {prefix + "seconds": time.perf_counter(), prefix + "steps": 1}  # noqa: E731
    assert not diagnose(long_keys, seed=1).reproducible
    calls = []

    def changing(*forms):
        calls.append(1)
        return forms[len(calls) % len(forms)]

    for forms in (({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([1], (1,))):
        assert not diagnose(changing, *forms, seed=1).reproducible
    meta = [torch.empty(n, device="meta") for n in (1, 2)]
    assert not diagnose(changing, *meta, seed=1).reproducible


def test_keys_that_are_objects_are_compared_by_their_place():
    assert diagnose(lambda: {object(): 1}, seed=1).reproducible


class Settings(dict):
    __getattr__ = dict.__getitem__


class Unbound:
    @property
    def __class__(self):
        raise RuntimeError("working outside of a context")


class Silent(Exception):
    def __str__(self):
        raise ValueError


@dataclass
class Late:
    value: int = field(init=False)


@pytest.mark.filterwarnings("ignore:.*prototype:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: Settings(rate=0.1),
        Unbound,
        lambda: 10**5000,
        lambda: "x" * 10**6,
        Late,
        lambda: torch.ones(2, requires_grad=True) * 2,
        lambda: nn.LazyLinear(3),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.empty(1, device="meta"),
        lambda: np.array([object()], dtype=object),
    ],
)
def test_odd_values_are_taken_and_returned(make):
    thing = make()
    assert diagnose(lambda one: one, thing, seed=1).reproducible


def test_an_error_without_a_text_is_told():
    def step():
        raise Silent

    assert "Silent" in diagnose(step, seed=1).error


def test_an_object_that_answers_to_every_name_takes_little_time():
    began = time.perf_counter()
    diagnose(lambda thing: torch.ones(2) + 1, mock.MagicMock(), seed=1)
    assert time.perf_counter() - began < 20


class Asynchronous:
    async def __call__(self):
        raise NotImplementedError


def test_an_object_whose_call_is_a_coroutine_is_refused():
    with pytest.raises(TypeError, match="coroutine"):
        diagnose(Asynchronous(), seed=1)


# ----------------------------------------------------------------------------------- causes


def test_an_operation_that_raises_does_not_hide_what_it_read():
    def step(weight):
        with suppress(RuntimeError):
            torch.mm(weight, torch.ones(2, 2))
        result = weight.cos()
        weight.add_(1)
        return result

    report = diagnose(step, torch.zeros(3), seed=1)
    assert report.cause == "state left from the run before"
    assert "weight" in report.because


class Once(nn.Module):
    table = None

    def forward(self, x):
        if self.table is None:
            self.table = torch.rand(4)
        return x * self.table * torch.rand(4)


def test_a_remedy_is_not_claimed_where_runs_do_not_differ_any_more():
    model = Once()
    report = diagnose(model, torch.ones(4), seed=1, restore=[model])
    assert report.remedies == []
    assert "first run alone" in report.advice


def test_a_loop_of_many_lines_takes_little_time():
    def step():
        total = 0
        for number in range(100_000):
            total += number
        return torch.ones(2) * (time.perf_counter_ns() % 1_000_003)

    began = time.perf_counter()
    report = diagnose(step, seed=1)
    assert time.perf_counter() - began < 20
    assert report.cause == "value from outside"
