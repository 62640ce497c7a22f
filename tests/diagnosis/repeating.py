"""Small programs that repeat, on which a report must be silent."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from seedscope import seeded

REPEATING: dict[str, Any] = {}


def repeats(make: Any) -> Any:
    REPEATING[make.__name__] = make
    return make


def values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@repeats
def draws_of_every_source():
    def step():
        drawn = [random.random(), np.random.rand(), np.random.default_rng().random()]
        return torch.tensor(drawn) + torch.rand(3)

    return (step,)


@repeats
def a_generator_made_inside():
    return (lambda: torch.rand(3, generator=torch.Generator().manual_seed(5)),)


@repeats
def a_training_step_that_is_restored():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())

    def step(model, optimizer, x):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        return model

    return step, model, optimizer, values(8, 4), {"restore": [model, optimizer]}


@repeats
def index_put_without_doubles():
    def step():
        places = torch.randperm(100_000)
        return torch.zeros(100_000).index_put_((places,), torch.randn(100_000), accumulate=True)

    return (step,)


@repeats
def index_put_under_deterministic_settings():
    def step():
        places = torch.randint(0, 50, (100_000,))
        return torch.zeros(50).index_put_((places,), torch.randn(100_000), accumulate=True)

    return step, {"deterministic": True}


@repeats
def empty_memory_that_is_written_first():
    def step(x):
        memory = torch.empty(10_000)
        memory[:5_000].fill_(1)
        memory[5_000:].copy_(x)
        return memory * 2

    return step, values(5_000)


@repeats
def empty_memory_that_nothing_reads():
    return (lambda: torch.empty(10_000).shape,)


@repeats
def results_given_by_out():
    def step(x):
        out = torch.empty(0)
        torch.mul(x, 2, out=out)
        return out.sum()

    return step, values(100)


@repeats
def operations_on_lists():
    def step(x):
        lists = [x.clone(), x * 2]
        torch._foreach_add_(lists, 1.0)
        return torch._foreach_norm(lists)

    return step, values(10)


@repeats
def sparse_tensors():
    def step(x):
        sparse = (x * (x > 0)).to_sparse()
        compressed = sparse.to_sparse_csr()
        return torch.sparse.mm(sparse, x.t()), compressed @ x.t()

    return step, values(5, 6)


@repeats
def nested_tensors():
    def step(x):
        jagged = torch.nested.nested_tensor([x, x[:2]], layout=torch.jagged)
        return (jagged * 2).values().sum()

    return step, values(4, 3)


@repeats
def complex_and_conjugate_views():
    def step(x):
        return (torch.fft.fft(x).conj() * 1j).imag

    return step, values(16)


@repeats
def small_dtypes_empty_and_scalar_tensors():
    def step(x):
        parts = [x.bool(), x.to(torch.float8_e4m3fn), x.bfloat16(), x[:0], x.sum(), x.char()]
        return [part.clone() for part in parts]

    return step, values(9)


@repeats
def values_that_are_not_numbers():
    def step(x):
        return (x / 0 * 0).sort(), -torch.zeros(3)

    return step, values(9)


@repeats
def meta_tensors():
    return (lambda: torch.empty(3, 4, device="meta") @ torch.empty(4, 2, device="meta"),)


@repeats
def a_loader_without_workers():
    loader = DataLoader(TensorDataset(values(8)), shuffle=True, batch_size=2)
    return lambda loader: [batch * 2 for (batch,) in loader], loader


@repeats
def a_loader_with_two_workers():
    loader = DataLoader(TensorDataset(values(8)), shuffle=True, batch_size=2, num_workers=2)
    return lambda loader: [batch * 2 for (batch,) in loader], loader


@repeats
def an_iterator_that_is_restored():
    batches = iter([values(3), values(4)])

    def step(batches):
        return [batch.sum() for batch in batches]

    return step, batches, {"restore": [batches]}


@repeats
def a_restored_generator():
    rng = np.random.default_rng(3)
    return lambda rng: torch.tensor(rng.random(3)), rng, {"restore": [rng]}


@repeats
def a_restored_tensor_and_array():
    x, array = values(3), np.zeros(3)

    def step(x, array):
        array += 1
        return x.add_(torch.tensor(array))

    return step, x, array, {"restore": [x, array]}


@repeats
def recomputed_activations():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout())

    def step(model, x):
        x = x.requires_grad_()
        loss = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).sum()
        return torch.autograd.grad(loss, [*model.parameters(), x])

    return step, model, values(8, 4)


@repeats
def transforms_of_functions():
    def step(x):
        return torch.vmap(torch.func.grad(lambda one: one.sin().sum()))(x)

    return step, values(4, 3)


@repeats
def an_operation_of_its_own_in_autograd():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    def step(x):
        x = x.clone().requires_grad_()
        Double.apply(x).sum().backward()
        return x.grad

    return step, values(4)


@repeats
def a_cached_function_without_draws():
    @functools.lru_cache
    def table(size):
        return list(range(size))

    return lambda x: x * len(table(3)), values(4)


@repeats
def a_scope_inside():
    def step():
        with seeded(3):
            first = torch.rand(2)
        with seeded():
            return first + torch.rand(2)

    return (step,)


@repeats
def quantized_tensors():
    def step(x):
        linear = torch.ao.nn.quantized.functional
        quantized = torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)
        return linear.hardtanh(quantized, 0.0, 1.0)

    return step, values(9)


@repeats
def overlapping_arguments():
    def step(x):
        x = x.clone()
        x[1:].copy_(x[:-1].clone())
        return x.add_(x)

    return step, values(9)


@repeats
def lists_in_the_results():
    def step(x):
        return {"parts": x.split(2), "most": x.max(0), "number": x.sum().item()}

    return step, values(8)
