"""The types that checkers must see; checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from seedscope import (
    Isolated,
    RandomState,
    RunLog,
    Scope,
    Seeded,
    Snapshot,
    Stream,
    Sweep,
    current_scope,
    isolated,
    note,
    seeded,
    snapshot,
    sweep,
)

assert_type(seeded(1029), Seeded)
assert_type(seeded(), Seeded)
assert_type(seeded(None, deterministic="warn", threads="wait", sources=["torch"]), Seeded)
assert_type(snapshot(), Snapshot)
assert_type(seeded(log="runs.jsonl"), Seeded)
assert_type(seeded(1, log=RunLog("runs.jsonl")), Seeded)
assert_type(sweep(lambda: 0.5, 3), Sweep)
assert_type([run.seed for run in RunLog("runs.jsonl")], list[int])
note(loss=0.5)

with seeded(1029) as scope:
    assert_type(scope, Scope)
    assert_type(scope.seed, int)
    assert_type(scope.used(), tuple[str, ...])
    assert_type(scope.derive("fold", 3), int)

assert_type(current_scope(), Scope | None)
assert_type(scope.reseeded, tuple[str, ...])
assert_type(RandomState(sources=["torch"]), RandomState)
assert_type(isolated(threads="wait"), Isolated)
assert_type(sweep(lambda: 0.5, 3).reseeded, dict[str, int | None])

with isolated() as nothing:
    assert_type(nothing, None)

with Stream(1029, "data") as scope:
    assert_type(scope, Scope)


@seeded
def bare(a: int, *, b: str = "") -> float:
    return a + len(b)


@seeded(1029)
def function(a: int, *, b: str = "") -> float:
    return a + len(b)


@Stream(1029)
async def coroutine(a: int) -> str:
    return str(a)


@seeded(1029)
def generator(n: int) -> Iterator[int]:
    yield n


@seeded(1029)
async def async_generator(n: int) -> AsyncIterator[int]:
    yield n


class Model:
    @seeded(1029)
    def method(self, a: int) -> int:
        return a

    @classmethod
    @seeded(1029)
    def of_class(cls, a: int) -> int:
        return a


async def use() -> None:
    assert_type(bare(1, b="x"), float)
    assert_type(function(1, b="x"), float)
    assert_type(await coroutine(1), str)
    assert_type(generator(1), Iterator[int])
    assert_type(async_generator(1), AsyncIterator[int])
    assert_type(Model().method(1), int)
    assert_type(Model.of_class(1), int)
    function("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    seeded("1029")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
