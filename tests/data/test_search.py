"""The search for generators: what it looks at, in which order, and where it stops."""

from __future__ import annotations

import functools
import itertools
import pickle
import random
from collections import OrderedDict, UserList, deque, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wrapt

from seedscope import SeededDataset
from seedscope.data import search
from seedscope.data.search import Search

Pair = namedtuple("Pair", "first second")


class Touchy:
    """An object whose own code must not run."""

    def __init__(self, rng):
        vars(self)["rng"] = rng

    def __getattr__(self, name):
        raise AssertionError(f"__getattr__({name})")

    @property
    def loaded(self):
        raise AssertionError("a property")

    def __eq__(self, other):
        raise AssertionError("__eq__")

    __hash__ = None

    def __bool__(self):
        raise AssertionError("__bool__")

    def __repr__(self):
        raise AssertionError("__repr__")


class Unbound:
    """A proxy outside of what it stands for, as those of web frameworks."""

    @property
    def __class__(self):
        raise RuntimeError("working outside of the context")


class TouchyList(list):
    def __iter__(self):
        raise AssertionError("__iter__")

    def __len__(self):
        raise AssertionError("__len__")


class TouchyDict(dict):
    def items(self):
        raise AssertionError("items")

    values = keys = items


def cell(rng):
    return lambda: rng


def slotted(rng):
    class Parent:
        __slots__ = ("empty", "rng")

    class Child(Parent):
        __slots__ = ("more",)

    child = Child()
    child.rng = rng
    return child


HOLDERS = {
    "list": lambda rng: [1, [rng]],
    "tuple": lambda rng: (None, (rng,)),
    "named tuple": lambda rng: Pair(1, rng),
    "dict": lambda rng: {"a": {None: rng}},
    "a key of its own": lambda rng: {(1, 2): rng},
    "ordered dict": lambda rng: OrderedDict(a=rng),
    "deque": lambda rng: deque([rng]),
    "user list": lambda rng: UserList([rng]),
    "namespace": lambda rng: SimpleNamespace(rng=rng),
    "array of objects": lambda rng: np.array([None, rng], dtype=object),
    "slots of a parent": slotted,
    "closure": cell,
    "partial": lambda rng: functools.partial(print, functools.partial(print, rng)),
    "cached function": lambda rng: functools.lru_cache(cell(rng)),
    "method of C": lambda rng: rng.random,
    "iterator": lambda rng: itertools.cycle([rng]),
    "proxy": lambda rng: wrapt.ObjectProxy(SimpleNamespace(rng=rng)),
    "own code": Touchy,
    "beside a proxy that raises": lambda rng: [Unbound(), {"proxy": Unbound(), "rng": rng}],
    "own list": lambda rng: TouchyList([rng]),
    "own dict": lambda rng: TouchyDict(a=rng),
    "parameters": lambda rng: torch.nn.ModuleDict({"a": torch.nn.Sequential()}) and [rng],
    "after a long list": lambda rng: [[*range(5000)], [("a", 1)] * 5000, rng],
    "in a long list": lambda rng: [*([object()] * 3000), rng],
    "in a long dict": lambda rng: {**dict.fromkeys(range(3000), object()), "rng": rng},
}


def found(root):
    return [
        thing for _, thing in Search(root, "root", (random.Random,)) if type(thing) is random.Random
    ]


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_generator_is_found_once_wherever_it_is(hold):
    rng = random.Random(3)
    assert [*map(id, found(hold(rng)))] == [id(rng)]
    assert [*map(id, found([hold(rng), hold(rng)]))] == [id(rng)]


def test_a_circle_ends():
    one, rng = [], random.Random(3)
    one.append({"again": one, "rng": rng})
    assert found(one) == [rng]


def test_a_long_list_of_plain_values_is_not_looked_through():
    class Counting(list):
        pass

    records = Counting([("name", number) for number in range(200_000)])
    looked_at = [thing for _, thing in Search([records], "root")]
    assert len(looked_at) < 10


def test_near_generators_are_found_before_a_long_container():
    rng = random.Random(3)
    records = [SimpleNamespace(number=number) for number in range(2_000)]
    things = [thing for _, thing in Search([records, {"deep": [[rng]]}], "root")]
    places = [number for number, thing in enumerate(things) if thing is rng]
    assert places[0] < 10


def test_a_search_that_stops_early_is_warned_of(monkeypatch):
    monkeypatch.setattr(search, "LIMIT", 50)
    dataset = [SimpleNamespace(number=number) for number in range(60)]
    rng = random.Random(3)
    with pytest.warns(RuntimeWarning, match="dataset was searched for generators as far as"):
        seeded = SeededDataset([rng, *dataset], 1029)
    assert seeded.generators == ("dataset[0]",)
    assert pickle.loads(pickle.dumps(seeded)).generators == ("dataset[0]",)


def test_what_belongs_to_python_numpy_and_torch_is_left_alone():
    names = {path.path() for path, _ in Search([random, np, torch, print, torch.nn.Linear], "root")}
    assert names == {"root", *(f"root[{number}]" for number in range(5)), "root[3].__self__"}
