"""A scope without a seed follows from the scope around it."""

from __future__ import annotations

import asyncio
import copy
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from helpers import draw, lines, run_in_fork, run_in_thread
from seedscope import (
    RunLog,
    ScopeConflictError,
    SeededDataset,
    Stream,
    evaluating,
    fresh_seed,
    isolated,
    seeded,
    snapshot,
)


@seeded
def helper():
    return draw()


@seeded
def steps():
    while True:
        yield draw()


@seeded
async def coroutine():
    return draw()


def block():
    with seeded() as scope:
        return scope.seed, draw()


def generator():
    running = steps()
    return [next(running), next(running)]


def evaluation():
    with evaluating(torch.nn.Dropout(), seed=None) as scope:
        return scope.seed, draw()


def logged(tmp_path):
    with seeded(log=tmp_path / "runs.jsonl") as scope:
        return scope.seed, draw()


KINDS = [helper, block, generator, evaluation, lambda: asyncio.run(coroutine())]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_scope_inside_a_seeded_one_repeats(kind):
    def run():
        with seeded(1029):
            return [kind(), kind(), draw()]

    before = snapshot()
    first = run()
    assert run() == first
    assert first[0] != first[1]
    assert kind() != kind()  # at the outermost level from the operating system
    assert before.changed(snapshot()) in ((), ("fake",))


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_scopes_do_not_move_the_streams_of_the_block(kind):
    with seeded(1029):
        without = draw()
    with seeded(1029):
        kind()
        assert draw() == without


def test_each_has_a_seed_of_its_own_that_repeats_it():
    with seeded(1029):
        seeds = [block()[0] for _ in range(200)]
    assert len(set(seeds)) == 200
    assert all(seed < 2**32 for seed in seeds)
    with seeded(1029):
        seed, value = block()
    with seeded(seed):
        assert draw() == value
    with seeded(1030):
        assert block()[0] not in seeds


def test_the_log_has_the_seed_that_followed(tmp_path):
    with seeded(1029):
        first = logged(tmp_path)
    with seeded(1029):
        assert logged(tmp_path) == first
    assert [run.seed for run in RunLog(tmp_path / "runs.jsonl")] == [first[0]] * 2
    begin, *_ = lines(RunLog(tmp_path / "runs.jsonl"))
    assert begin["seed"] == first[0]


def test_scopes_inside_scopes_follow_each_from_its_own():
    def run():
        with seeded(1029), seeded() as outer, seeded() as inner:
            return outer.seed, inner.seed, draw()

    first = run()
    assert run() == first
    assert first[0] != first[1]
    with seeded(first[0]), seeded() as inner:
        assert inner.seed == first[1]


def test_a_decorated_generator_draws_its_seed_once():
    def run():
        with seeded(1029):
            a, b = steps(), steps()
            return [next(a), next(b), next(a), next(b)]

    first = run()
    assert run() == first
    assert len(set(first)) == 4


def test_a_snapshot_and_a_stream_continue_the_seeds():
    with seeded(1029):
        block()
        moment = snapshot()
        expected = [block(), block()]
        moment.restore()
        assert [block(), block()] == expected
    stream = Stream(1029)
    with stream:
        block()
    state = copy.deepcopy(stream.state_dict())
    loaded = Stream(0)
    loaded.load_state_dict(state)
    for one in (stream, loaded):
        with one:
            assert [block(), block()] == expected


def test_a_state_of_before_the_count_still_loads():
    stream = Stream(1029)
    state = stream.state_dict()
    assert len(state["sources"]["unseeded"]) == 4
    state["sources"]["unseeded"].pop()
    stream.load_state_dict(state)
    with stream, seeded() as inner:
        got = inner.seed
    with seeded(1029), seeded() as inner:
        assert inner.seed == got


def test_a_scope_that_leaves_unseeded_out_is_not_followed():
    with seeded(1029, sources=["python"]):
        assert block() != block()
    with seeded(1029, sources=["python"]), seeded() as inner:
        seed = inner.seed
    with seeded(1029, sources=["python"]), seeded() as inner:
        assert inner.seed != seed


def test_the_inner_scope_may_leave_sources_out():
    def run():
        with seeded(1029), seeded(sources=["torch"]) as inner:
            return inner.seed

    assert run() == run()


@pytest.mark.filterwarnings("ignore:worker processes")
def test_a_forked_child_gets_entropy_of_its_own():
    with seeded(1029):
        seeds = {run_in_fork(lambda: block()[0]) for _ in range(3)}
        seeds.add(block()[0])
    assert len(seeds) == 4


class Augmented(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        with seeded() as scope:
            return scope.seed + 0 * random.getrandbits(3)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_in_a_loader_a_fresh_scope_follows_from_the_sample(workers):
    loader = DataLoader(
        SeededDataset(Augmented(), 7),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    with isolated():  # a loader draws from torch
        got = [int(batch) for batch in loader]
    assert got == [int(x) for x in [SeededDataset(Augmented(), 7)[i] for i in range(6)]]
    assert len(set(got)) == 6


def test_a_refused_and_a_waiting_thread_draw_no_seed():
    with seeded(1029):
        expected = block()
    inside = threading.Event()

    def wait():
        inside.set()
        with seeded(threads="wait") as scope:
            return scope.seed

    with ThreadPoolExecutor(1) as pool:
        with seeded(1029):
            with pytest.raises(ScopeConflictError):
                run_in_thread(block)
            waiting = pool.submit(wait)
            assert inside.wait(20)
            assert block() == expected
        assert waiting.result(20) != expected[0]


def test_a_state_of_inside_decides_no_seed_outside():
    with seeded(1029):
        moment = snapshot()
    before, seeds = snapshot(), []
    for _ in range(2):
        moment.restore()
        seeds.append(block()[0])
    before.restore()
    assert seeds[0] != seeds[1]


def test_fresh_seed_stays_fresh_inside_a_scope():
    with seeded(1029):
        first = [fresh_seed() for _ in range(3)]
    with seeded(1029):
        assert [fresh_seed() for _ in range(3)] != first


def test_used_counts_a_fresh_scope_as_unseeded():
    with seeded(1029) as scope:
        assert scope.used() == ()
        block()
        assert scope.used() == ("unseeded",)
    assert scope.used() == ("unseeded",)


def test_unseeded_generators_beside_fresh_scopes_keep_their_numbers():
    with seeded(1029):
        expected = np.random.default_rng().random(), random.Random().random()
    with seeded(1029):
        block()
        assert (np.random.default_rng().random(), random.Random().random()) == expected


def test_a_conflict_of_a_fresh_scope_says_that_it_has_no_seed_yet():
    with seeded(1029), pytest.raises(ScopeConflictError, match="<Scope of a fresh seed, closed>"):
        run_in_thread(block)


def test_a_fresh_scope_is_refused_in_a_recomputation_without_a_scope_around():
    def f(x):
        with seeded():
            return x * x

    x = torch.ones(4, requires_grad=True)
    y = checkpoint(f, x, use_reentrant=False).sum()
    with pytest.raises(RuntimeError, match="Give the scope a seed"):
        y.backward()
