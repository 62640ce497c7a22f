"""Decorated callables of each kind, where other processes can import them."""

from __future__ import annotations

import asyncio
import functools
import random

import numpy as np
import torch

from seedscope import seeded


def undecorated(n=1):
    return [draw() for _ in range(n)]


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


with seeded(1029):
    FIRST, SECOND, THIRD, FOURTH = draw(), draw(), draw(), draw()


@seeded(1029)
def function(a, b: int = 2, *, c=None):
    """A docstring."""
    return draw()


@seeded
def fresh():
    return draw()


@seeded(1029)
def generator(n=2):
    """A generator's docstring."""
    for _ in range(n):
        yield draw()
    return "done"


@seeded(1029)
async def coroutine(n=1):
    """A coroutine's docstring."""
    drawn = []
    for _ in range(n):
        drawn.append(draw())
        await asyncio.sleep(0)
    return drawn


@seeded(1029)
async def async_generator(n=2):
    """An async generator's docstring."""
    for _ in range(n):
        yield draw()
        await asyncio.sleep(0)


class Model(torch.nn.Module):
    @seeded(1029)
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    @seeded(1029)
    def forward(self, x):
        return torch.nn.functional.dropout(self.linear(x), 0.5)


class Holder:
    scale = 3

    @seeded(1029)
    def method(self):
        return self.scale, draw()

    @seeded(1029)
    @classmethod
    def of_class(cls):
        return cls.scale, draw()

    @classmethod
    @seeded(1029)
    def of_class_inside(cls):
        return cls.scale, draw()

    @seeded(1029)
    @staticmethod
    def static():
        return draw()

    @staticmethod
    @seeded(1029)
    def static_inside():
        return draw()

    @seeded(1029)
    @property
    def value(self):
        """A property's docstring."""
        return self.scale, draw()

    @value.setter
    def value(self, scale):
        self.scale = scale

    @seeded(1029)
    @functools.cached_property
    def cached(self):
        return self.scale, draw()

    @seeded(1029)
    @functools.lru_cache  # noqa: B019
    def looked_up(self, key):
        return key, draw()

    @seeded(1029)
    def steps(self):
        yield self.scale, draw()

    @seeded(1029)
    def __call__(self):
        return self.scale, draw()


class Callable:
    state = "kept"

    def __call__(self, n=1):
        return [draw() for _ in range(n)]


class AsyncCallable:
    async def __call__(self):
        await asyncio.sleep(0)
        return draw()
