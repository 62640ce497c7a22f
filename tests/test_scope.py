from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from conftest import draw, run_python

from seedscope import RestoreError, ScopeConflictError, Stream, seeded, snapshot


def test_a_block_repeats_and_leaves_nothing_behind():
    before = snapshot()
    with seeded(1029) as scope:
        first = draw()
        assert scope.seed == 1029
    assert snapshot().changed(before) == ("fake",), "the device that the block started"
    with seeded(1029):
        assert draw() == first


def test_each_entry_of_one_object_starts_the_stream_anew_also_inside_itself():
    scope = seeded(1029)
    with scope:
        first = draw()
        with scope:
            assert draw() == first
        continued = draw()
    with scope:
        assert (draw(), draw()) == (first, continued)


def test_without_a_seed_each_entry_draws_a_fresh_one_that_replays():
    scope = seeded()
    with scope as a:
        drawn = draw()
    with scope as b:
        assert draw() != drawn
    assert a.seed != b.seed
    with seeded(a.seed):
        assert draw() == drawn


def test_the_outer_state_comes_back_when_the_block_raises():
    before = snapshot()
    for error in (ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration):
        with pytest.raises(error), seeded(1029):
            random.random(), np.random.rand(), torch.rand(1)
            torch.backends.cudnn.benchmark = True
            raise error
        assert snapshot() == before


@pytest.mark.skipif(
    not hasattr(torch._C._dynamo.eval_frame, "set_code_exec_strategy"),
    reason="before torch 2.7 the compiler has to be imported to be kept out",
)
def test_entry_imports_no_compiler_and_starts_no_device():
    run_python(
        """
import sys, torch, numpy
from seedscope import seeded, snapshot
with seeded(1029) as scope:
    scope.used(), snapshot()
heavy = {"torch._inductor.config", "torch._dynamo", "matplotlib", "rich", "sklearn"}
assert not heavy & set(sys.modules)
assert not torch.cuda.is_initialized()
"""
    )


# Arguments


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"deterministic": "yes"}, ValueError, 'True, "warn", "cudnn" or False, got \'yes\''),
        ({"deterministic": 1}, ValueError, "got 1"),
        ({"deterministic": None}, ValueError, "got None"),
        ({"deterministic": []}, ValueError, r"got \[\]"),
        ({"fill_uninitialized_memory": "no"}, ValueError, "got 'no'"),
        ({"fill_uninitialized_memory": 1}, ValueError, "got 1"),
        ({"threads": "run"}, ValueError, '"raise" or "wait", got \'run\''),
        ({"sources": ["torch", "jax"]}, ValueError, r"unknown sources \['jax'\]; registered"),
        ({"sources": "torch"}, TypeError, r'such as \["torch"\], got \'torch\''),
        ({"sources": 3}, TypeError, "got 3"),
        ({"determinstic": True}, TypeError, "determinstic"),
    ],
)
@pytest.mark.parametrize("make", [seeded, Stream])
def test_wrong_options_are_refused_before_anything_is_touched(make, options, error, says):
    before = snapshot()
    with pytest.raises(error, match=says):
        make(1029, **options)
    assert snapshot() == before


def test_leaving_without_having_entered_is_an_error():
    before = snapshot()
    with pytest.raises(RuntimeError, match="without having been entered"):
        seeded(1029).__exit__(None, None, None)
    with seeded(1) as scope:
        pass
    with pytest.raises(RuntimeError, match="without having been entered"):
        scope.__exit__(None, None, None)
    assert snapshot() == before


def test_one_opened_scope_cannot_be_entered_again():
    with seeded(1) as scope, pytest.raises(ScopeConflictError, match="already open"):
        scope.__enter__()


# Scopes that are not nested


def test_scopes_left_out_of_order_lose_nothing_and_say_so():
    before = snapshot()
    first, second = seeded(1), seeded(2)
    first.__enter__()
    random.random()
    second.__enter__()
    with pytest.raises(ScopeConflictError, match="was left while"):
        first.__exit__(None, None, None)
    with seeded(2):
        expected = random.random()
    assert random.random() == expected, "the scope that is still open goes on undisturbed"
    second.__exit__(None, None, None)
    assert snapshot() == before


def test_scopes_of_different_sources_left_out_of_order_lose_nothing():
    before = snapshot()
    outer = seeded(1, sources=["python", "torch"])
    inner = seeded(2, sources=["torch", "numpy"], deterministic=False)
    outer.__enter__()
    inner.__enter__()
    random.random(), np.random.rand(), torch.rand(1)
    with pytest.raises(ScopeConflictError):
        outer.__exit__(None, None, None)
    assert set(before.changed(snapshot())) >= {"numpy", "torch"}
    assert "python" not in before.changed(snapshot())
    inner.__exit__(None, None, None)
    assert snapshot() == before


# Threads


def run_in_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def enter():
    with seeded(5):
        return draw()


def test_a_thread_that_enters_while_another_holds_a_scope_is_refused_with_nothing_changed():
    with seeded(1029):
        first = random.random()
        before = snapshot()
        with pytest.raises(
            ScopeConflictError, match=r"seed 1029, open> is open in thread MainThread"
        ):
            run_in_thread(enter)
        assert snapshot() == before
        with pytest.raises(ScopeConflictError, match='threads="wait"'):
            run_in_thread(enter)
        second = random.random()
    with seeded(1029):
        assert (random.random(), random.random()) == (first, second)
    assert run_in_thread(enter) == enter()


def test_leaving_an_inner_block_does_not_let_other_threads_in():
    with seeded(1029):
        with seeded(5):
            pass
        with pytest.raises(ScopeConflictError):
            run_in_thread(enter)


def test_threads_that_wait_get_the_single_threaded_results():
    def work(seed):
        with seeded(seed, threads="wait"):
            return [draw() for _ in range(20)]

    expected = [work(seed) for seed in range(32)]
    before = snapshot()
    with ThreadPoolExecutor(32) as pool:
        barrier = threading.Barrier(32)

        def together(seed):
            barrier.wait()
            return work(seed)

        assert list(pool.map(together, range(32))) == expected
    assert snapshot() == before


def test_one_waiting_object_can_be_shared_by_threads():
    scope = seeded(1029, threads="wait")

    def work(_):
        with scope as mine:
            return mine.seed, [draw() for _ in range(5)]

    expected = work(0)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == [expected] * 40


def test_a_stream_shared_by_threads_waits_or_refuses_and_never_closes_anothers_block():
    with seeded(1029):
        expected = [random.random() for _ in range(120)]
    stream = Stream(1029, threads="wait")
    drawn = []

    def work(_):
        with stream:
            drawn.append(random.random())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(120)))
    assert drawn == expected

    refusing = Stream(1029)
    with refusing:
        first = random.random()
        for _ in range(20):
            with pytest.raises(ScopeConflictError):
                run_in_thread(refusing.__enter__)
        second = random.random()
    assert [first, second] == expected[:2]
    assert run_in_thread(enter) == enter()


def test_a_stream_hammered_by_refused_threads_keeps_its_block():
    stream, switch = Stream(1029), sys.getswitchinterval()
    before, refused = snapshot(), []
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            try:
                with stream:
                    assert scope_is_mine()
            except ScopeConflictError:
                refused.append(1)

    def scope_is_mine():
        mine = random.getstate()
        return stream._scope.is_open and random.getstate() == mine

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(hammer) for _ in range(4)]
            time.sleep(0.5)
            stop.set()
            [future.result(20) for future in futures]
    finally:
        sys.setswitchinterval(switch)
    assert refused
    assert before.changed(snapshot()) == ()


def test_a_scope_that_waits_goes_on_when_the_holder_leaves():
    entered, results = threading.Event(), []

    def wait():
        with seeded(5, threads="wait"):
            results.append(random.random())

    with seeded(1029):
        thread = threading.Thread(target=wait)
        thread.start()
        entered.wait(0.1)
        assert not results
    thread.join(10)
    assert results == [random.Random(5).random()]


def test_backward_in_another_thread_says_what_to_do():
    class Noise(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            with seeded(5):
                return gradient + torch.rand_like(gradient)

    x = torch.ones(3, requires_grad=True)
    with seeded(1029):
        loss = Noise.apply(x).sum()
        with pytest.raises(ScopeConflictError, match=r"draw in forward\(\) instead"):
            run_in_thread(loss.backward)
        loss = Noise.apply(x).sum()
        loss.backward()  # the CPU's backward runs in the thread that calls it: nested, and fine
    assert torch.equal(x.grad, 1 + torch.rand(3, generator=torch.Generator().manual_seed(5)))


# asyncio


def test_tasks_whose_blocks_overlap_are_refused_with_nothing_changed():
    outcome = {}

    async def hold(started, done):
        with seeded(1029):
            started.set()
            await done.wait()
            outcome["drawn"] = random.random()

    async def main():
        started, done = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold(started, done), name="holder")
        await started.wait()
        before = snapshot()
        for threads in ("raise", "wait"):  # to wait here would stop the loop, and the holder
            with (
                pytest.raises(ScopeConflictError, match=r"holder.*Decorate the coroutine"),
                seeded(5, threads=threads),
            ):
                pass
        assert snapshot() == before
        done.set()
        await holder
        with seeded(1029):
            assert random.random() == outcome["drawn"]

    before = snapshot()
    asyncio.run(main())
    assert snapshot() == before


def test_a_loop_that_runs_inside_a_block_can_open_scopes():
    async def block():
        with seeded(5):
            return random.random()

    @seeded(5)
    async def decorated():
        await asyncio.sleep(0)
        return random.random()

    async def main():
        with seeded(7):
            together = await asyncio.gather(decorated(), decorated())
            return [await block(), *together]

    with seeded(1029):
        first = random.random()
        assert asyncio.run(block()) == random.Random(5).random()
        assert asyncio.run(main()) == [random.Random(5).random()] * 3
        second = random.random()
    reference = random.Random(1029)
    assert (first, second) == (reference.random(), reference.random())


def test_a_refused_coroutine_leaves_no_warning_behind(recwarn):
    @seeded(5)
    async def decorated():
        return random.random()

    with seeded(1029), pytest.raises(ScopeConflictError):
        run_in_thread(lambda: asyncio.run(decorated()))
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


# Forks


def _in_child(connection, function):
    try:
        connection.send(function())
    except BaseException as error:
        connection.send(repr(error))


def run_in_fork(function):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_child, args=(theirs, function))
    process.start()
    assert ours.poll(30)
    result = ours.recv()
    process.join(30)
    return result


def test_a_process_forked_inside_a_block_can_open_its_own():
    expected = enter()
    with seeded(1029):
        assert run_in_fork(enter) == expected
        assert run_in_fork(lambda: run_in_thread(enter)) == expected


def test_a_process_forked_inside_a_task_that_holds_a_block_can_open_its_own():
    expected = enter()

    async def main():
        with seeded(1029):
            return run_in_fork(enter)

    assert asyncio.run(main()) == expected


def test_a_process_forked_from_another_thread_while_a_block_is_open_can_open_its_own():
    expected = enter()
    with seeded(1029):
        assert run_in_thread(lambda: run_in_fork(enter)) == expected
        assert run_in_fork(lambda: run_in_thread(enter)) == expected


def test_a_fork_while_threads_wait_does_not_inherit_their_lock():
    # Without torch: its generator has a lock of its own, which a child inherits as it is.
    def work(seed):
        with seeded(seed, threads="wait", sources=["python"]):
            return [random.random() for _ in range(50)]

    expected = work(1029)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(work, seed) for seed in range(400)]
        results = [run_in_fork(partial(work, 1029)) for _ in range(5)]
        [future.result() for future in waiting]
    assert results == [expected] * 5


def test_a_child_that_leaves_the_block_it_was_forked_in_gets_the_outer_state():
    outer = random.getstate()
    read, write = os.pipe()
    with seeded(1029):
        child = os.fork()
        random.random()
    if child == 0:
        try:
            with seeded(5):
                pass
            os.write(write, b"1" if random.getstate() == outer else b"0")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"1"
    assert random.getstate() == outer


def test_restore_errors_carry_each_failure_and_the_blocks_own_error(monkeypatch):
    from seedscope.sources.registry import select_sources

    [python] = select_sources(["python"])
    before = snapshot()
    with pytest.raises(RestoreError) as raised, monkeypatch.context() as patch, seeded(1029):
        patch.setattr(python, "restore", lambda state: 1 / 0)
        raise ValueError("mine")
    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]
    assert isinstance(raised.value.__context__, ValueError)
    assert before.changed(snapshot()) == ("python",), "all others came back"
    before.restore()
