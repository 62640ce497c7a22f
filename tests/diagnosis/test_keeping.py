"""What `restore` names is put back bit for bit, whatever a run did to it."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from seedscope import diagnose, seeded
from seedscope.diagnosis.keeping import Kept
from seedscope.support.digests import digest


class Odd(nn.Module):
    """A module with a buffer that no state_dict has, and state of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("passing", torch.zeros(3), persistent=False)
        self.count = 0

    def get_extra_state(self):
        return {"count": self.count}

    def set_extra_state(self, state):
        self.count = state["count"]


@pytest.fixture
def module():
    with seeded(1):
        return Odd()


def test_a_module_is_restored_with_gradients_modes_and_all_buffers(module):
    module.linear.weight.grad = torch.ones(3, 3)
    module.linear.eval()
    kept = Kept([module])
    before, weight = digest(module), module.linear.weight
    with torch.no_grad():
        module.linear.weight += 1
        module.passing += 1
    module.linear.weight.grad.mul_(2)
    module.linear.bias.grad = torch.ones(3)
    module.train()
    module.count = 7
    kept.restore()
    assert digest(module) == before
    assert module.linear.weight is weight
    assert module.linear.bias.grad is None
    assert not module.linear.training
    assert module.training
    assert module.count == 0
    assert torch.equal(module.passing, torch.zeros(3))


def test_a_gradient_that_was_none_is_none_again(module):
    kept = Kept([module])
    module.linear(torch.ones(3)).sum().backward()
    kept.restore()
    assert all(one.grad is None for one in module.parameters())


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.LBFGS])
def test_an_optimizer_is_restored_to_the_bits(kind, module):
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(module.parameters(), lr=0.1, **options)

    def step():
        optimizer.zero_grad()
        loss = module.linear(torch.ones(2, 3)).square().sum()
        loss.backward()
        return loss

    optimizer.step(step)
    kept, before = Kept([optimizer]), digest(optimizer)
    optimizer.step(step)
    optimizer.param_groups[0]["lr"] = 5.0
    optimizer.param_groups[0]["added"] = 1
    assert digest(optimizer) != before
    kept.restore()
    assert digest(optimizer) == before
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert "added" not in optimizer.param_groups[0]


def test_a_state_of_more_precision_than_its_parameter_is_kept():
    weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([weight])
    optimizer.state[weight]["master"] = torch.full((3,), 1.0001)
    kept = Kept([optimizer])
    optimizer.state[weight]["master"].zero_()
    kept.restore()
    assert optimizer.state[weight]["master"].dtype == torch.float32
    assert optimizer.state[weight]["master"][0] == torch.tensor(1.0001)


def test_a_first_step_is_forgotten(module):
    optimizer = torch.optim.Adam(module.parameters())
    kept = Kept([optimizer])
    module.linear(torch.ones(3)).sum().backward()
    optimizer.step()
    assert optimizer.state
    kept.restore()
    assert not optimizer.state


def test_tensors_arrays_generators_and_schedulers_are_restored(module):
    tensor, array = torch.tensor([1.0, float("nan")]), np.array([1.0, -0.0])
    generators = [torch.Generator(), np.random.default_rng(1), random.Random(1)]
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(1))
    kept = Kept([tensor, array, *generators, optimizer, scheduler, scaler])

    def draw():
        torch_one, numpy_one, python_one = generators
        drawn = torch.rand(1, generator=torch_one).item(), numpy_one.random(), python_one.random()
        tensor.zero_()
        array[:] = 3
        optimizer.step()
        scheduler.step()
        scaler.update(2.0)
        return drawn

    first = draw()
    for _ in range(2):
        kept.restore()
        assert tensor[0] == 1
        assert np.signbit(array[1])
        assert optimizer.param_groups[0]["lr"] == 1.0
        assert scheduler.last_epoch == 0
        assert scaler.get_scale() == 8.0
        assert draw() == first


@pytest.mark.parametrize(
    "iterator",
    [
        iter([1, 2, 3, 4]),
        iter(range(1, 5)),
        enumerate([1, 2, 3]),
        zip([1, 2], iter([3, 4]), strict=True),
        map(abs, iter([-1, -2, -3])),
        itertools.count(1),
        reversed([3, 2, 1]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_iterator_is_copied_at_its_position(iterator):
    next(iterator)
    kept = Kept([iterator], [iterator])
    first = [*itertools.islice(kept.given(iterator), 2)]
    assert [*itertools.islice(kept.given(iterator), 2)] == first
    assert [*itertools.islice(iterator, 2)] == first, "the iterator itself has not moved"
    other = iter([5])
    assert kept.given(other) is other


def numbers():
    yield 1


@pytest.mark.parametrize(
    ("restore", "words"),
    [
        ([object()], "cannot keep"),
        ([nn.Linear], "cannot keep"),
        ([None], "cannot keep"),
        ([iter([1])], "not an argument"),
        (nn.Identity(), "must be a list"),
        ("model", "must be a list"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_runs(restore, words):
    calls = []
    with pytest.raises(TypeError, match=words):
        diagnose(lambda: calls.append(1), seed=1, restore=restore)
    assert not calls


def test_a_generator_function_that_was_begun_cannot_be_copied():
    begun = numbers()
    with pytest.raises(TypeError, match="make it inside the function"):
        diagnose(list, begun, seed=1, restore=[begun])
    assert next(begun) == 1
