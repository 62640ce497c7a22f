"""Small programs that do not repeat, each with a known cause.

Each function is called anew for each test, and returns the function to diagnose with its
arguments. `EXPECTED` says what a report has to name.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Expected(NamedTuple):
    """The operation, the cause, and words of the report."""

    make: Callable[[], tuple[Any, ...]]
    operation: str
    cause: str
    words: tuple[str, ...] = ()


EXPECTED: dict[str, Expected] = {}


def differs(operation: str, cause: str, *words: str) -> Any:
    def keep(make: Any) -> Any:
        EXPECTED[make.__name__] = Expected(make, operation, cause, words)
        return make

    return keep


# ------------------------------------------------------------------ operations themselves


@differs(
    "aten.index_put_", "operation", "accumulate=True", "deterministic=True); measured here: 1 "
)
def index_put_on_two_threads():
    def step():
        places = torch.randint(0, 50, (2_000_000,))
        return torch.zeros(50).index_put_((places,), torch.randn(2_000_000), accumulate=True)

    return step, {"runs": 6}  # on a busy machine the threads may take turns in two of them


@differs("aten.logsumexp", "number of threads", "1 and 2 threads")
def a_reduction_under_another_number_of_threads():
    counts = itertools.cycle([1, 2])

    def step(values):
        torch.set_num_threads(next(counts))
        return values.logsumexp(0)

    return step, torch.randn(1_000_003, generator=torch.Generator().manual_seed(1))


@differs("aten.addmm", "order of a set", "another tensor was given to it", "a list, or sorted")
def layers_in_the_order_of_their_addresses():
    def step(values):
        layers = [nn.Linear(4, 4) for _ in range(6)]
        for layer in random.SystemRandom().sample(layers, 6):  # as a set of modules has them
            values = layer(values)
        return values

    return step, torch.ones(2, 4)


# --------------------------------------------------------------------------- generators


@differs("aten.rand.generator", "generator from outside", "generator", "measured here: 1 result")
def a_generator_made_before_the_block():
    generator = torch.Generator().manual_seed(3)

    def step():
        return torch.rand(3, generator=generator) * 2

    return (step,)


@differs("aten.lift_fresh", "generator from outside", "dataset.rng", "differing.py")
def a_dataset_with_its_own_generator():
    class Noisy(torch.utils.data.Dataset):
        def __init__(self):
            self.rng = np.random.default_rng(0)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.tensor(index + self.rng.normal())

    def step(dataset):
        return sum(dataset[i] for i in range(4))

    return step, Noisy()


@differs("aten.random_", "generator from outside", "loader.generator", "measured here: 1 result")
def a_loader_that_shuffles_with_its_own_generator():
    data = TensorDataset(torch.arange(8.0))
    loader = DataLoader(data, shuffle=True, generator=torch.Generator().manual_seed(0))

    def step(loader):
        return [batch * 2 for (batch,) in loader]

    return step, loader


@differs("aten.mul", "value from outside", "the operating system's entropy", "differing.py")
def system_random():
    def step(values):
        return values * random.SystemRandom().random()

    return step, torch.ones(3)


# ----------------------------------------------------------------- seeded inside the block


@differs("aten.lift_fresh", "seeded inside", "numpy was seeded at", "differing.py")
def numpy_seeded_inside():
    def step():
        np.random.seed(int.from_bytes(os.urandom(4), "little"))
        return torch.tensor(np.random.rand(3)) * 2

    return (step,)


@differs("aten.rand.default", "seeded inside", "torch was seeded at", "differing.py")
def torch_seeded_inside():
    def step():
        torch.manual_seed(time.time_ns() % 2**32)
        return torch.rand(3)

    return (step,)


@differs("aten.bernoulli_", "seeded inside", "drop (Dropout)", "torch was seeded at")
def dropout_left_in_train_mode():
    model = nn.Sequential()
    model.drop = nn.Dropout()

    def evaluate(model, values):
        torch.seed()  # as an evaluation outside of every scope starts anywhere
        with torch.no_grad():
            return model(values).sum()

    return evaluate, model, torch.ones(100)


# ----------------------------------------------------------------------------- outside


@differs("aten.", "value from outside", "the time", "goes to")
def a_branch_on_the_time():
    deadline = time.perf_counter() + 1

    def step(values):
        if (left := deadline - time.perf_counter()) < 0:
            return values.cos()
        time.sleep(left + 0.01)
        return values.sin()

    return step, torch.ones(3)


@differs("aten.mul", "value from outside", "an address")
def an_address_as_a_key():
    kept = []

    def step(values):
        kept.append(object())
        return values * (id(kept[-1]) % 10_007)

    return step, torch.ones(3)


@differs("aten.add", "uninitialised memory", "torch.empty")
def uninitialised_memory():
    def step(values):
        junk = os.urandom(40_000)
        del junk  # torch.empty gets its memory
        return torch.empty(10_000, dtype=torch.int32) + values

    return step, torch.ones(10_000, dtype=torch.int32)


@differs("aten.add", "memory changed unseen", "NumPy view")
def memory_written_through_numpy():
    def step():
        values = torch.zeros(8)
        values.numpy()[3] = time.perf_counter_ns() % 1_000_003
        return values + 1

    return (step,)


@differs("what", "value from outside", "result['seconds']", "the time")
def a_time_in_the_result():
    def step(values):
        return {"sum": values.sum(), "seconds": time.perf_counter()}

    return step, torch.ones(3)


# ------------------------------------------------------------------- state of the run before


@differs("aten.add_", "state left", "model.1.num_batches_tracked", "restore=[..., model]")
def statistics_of_a_batch_norm():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def step(model, values):
        return model(values).sum()

    return step, model, torch.randn(8, 4)


@differs("aten.", "state left", "optimizer.state", "restore=[..., optimizer]; measured here: 1")
def an_optimizer_that_is_not_restored():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(model, optimizer, values):
        optimizer.zero_grad()
        model(values).square().sum().backward()
        optimizer.step()

    return step, model, optimizer, torch.randn(8, 4), {"restore": [model]}


@differs("aten.rand", "state left", "cached_noise", "0 cached", "goes to")
def a_cached_function_that_draws():
    @functools.lru_cache
    def cached_noise():
        return torch.rand(3)

    def step(values):
        return values + cached_noise() + torch.rand(3)

    return step, torch.ones(3)


@differs("aten.rand", "state left", "cache.noise", "goes to")
def a_cached_random_tensor():
    cache = SimpleNamespace(noise=None)

    def step(values):
        if cache.noise is None:
            cache.noise = torch.rand(3)
        return values + cache.noise + torch.rand(3)

    return step, torch.ones(3)


@differs("aten.add_", "state left", "values", "restore=[..., values]; measured here: 1 result")
def an_input_updated_in_place():
    def step(values):
        values.add_(1)
        return values * 2

    return step, torch.ones(3)


@differs("aten.", "state left", "scheduler", "measured here: 1 result")
def a_scheduler_that_went_on():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def step(model, optimizer, scheduler, values):
        optimizer.zero_grad()
        model(values).square().sum().backward()
        optimizer.step()
        scheduler.step()

    return step, model, optimizer, scheduler, torch.randn(8, 4), {"restore": [model]}


@differs("aten.", "state left", "scaler", "restore=[..., scaler]; measured here: 1 result")
def a_scaler_of_mixed_precision():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)

    def step(model, optimizer, scaler, values):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(values).square().sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step, model, optimizer, scaler, torch.randn(8, 4), {"restore": [model, optimizer]}


@differs("aten.", "state left", "grad", "restore=[..., model]; measured here: 1 result")
def gradients_left_over():
    model = nn.Linear(4, 2)

    def step(model, values):
        model(values).square().sum().backward()
        return [one.grad.clone() for one in model.parameters()]

    return step, model, torch.randn(8, 4)


@differs("aten.", "state left", "calls", "differing.py", "goes to")
def a_hook_that_draws():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    calls = []

    def draw_now_and_then(module, inputs):
        calls.append(1)
        if len(calls) % 2:
            torch.rand(1)

    model[0].register_forward_pre_hook(draw_now_and_then)

    def step(model, values):
        return model(values)

    return step, model, torch.randn(8, 4)


@differs("aten.", "state left", "model.0 is lazy, and was initialised in run 1", "goes to")
def a_lazy_module():
    model = nn.Sequential(nn.LazyLinear(3), nn.Dropout())

    def step(model, values):
        return model(values)

    return step, model, torch.randn(8, 4)


@differs("aten.", "state left", "workers[0] (0, then 1)", "goes to")
def augmentation_that_depends_on_the_number_of_workers():
    class Augmented(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return index + torch.rand(())

    workers = [0, 1, 2]

    def step(dataset):
        num_workers = workers[0]
        workers.append(workers.pop(0))
        return [batch * 2 for batch in DataLoader(dataset, num_workers=num_workers)]

    return step, Augmented()
