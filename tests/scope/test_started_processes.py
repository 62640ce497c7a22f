"""A block warns of the worker processes that it has started, whose draws do not follow its seed."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess

import joblib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers import run_in_thread
from seedscope import Stream, derive_seed, isolated, seeded, snapshot, sweep
from seedscope.scope.advice import WORKERS

# Python 3.12 and newer say so of a fork beside the threads of torch.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

FORK = multiprocessing.get_context("fork")
TOLD = pytest.warns(UserWarning, match="worker processes .* do not follow its seed")


def work(_=None):
    return np.random.rand()


def start_process():
    process = FORK.Process(target=work)
    process.start()
    process.join()


def use_pool():
    with FORK.Pool(2) as pool:
        pool.map(work, range(4))


def use_executor():
    with ProcessPoolExecutor(2, FORK) as pool:
        list(pool.map(work, range(4)))


def use_joblib():
    joblib.Parallel(2, backend="multiprocessing")(joblib.delayed(work)() for _ in range(4))


def use_loky():
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown()  # workers that another block has started are not seen
    joblib.Parallel(2)(joblib.delayed(work)() for _ in range(4))


def use_spawned():
    torch.multiprocessing.spawn(work, nprocs=1)


STARTS = [start_process, use_pool, use_executor, use_joblib, use_loky, use_spawned]


@pytest.mark.parametrize("start", STARTS)
def test_the_block_warns_at_its_end(start):
    before = snapshot()
    with TOLD as told:
        with seeded(1029):
            random.random()
            start()
        assert before.changed(snapshot()) == ()
    [warning] = [w for w in told if "worker processes" in str(w.message)]
    assert warning.filename == __file__
    assert "scope.derive" in str(warning.message)
    assert "initializer" in str(warning.message)
    assert "sweep" in str(warning.message)


def test_a_decorated_call_and_a_stream_warn_too():
    with TOLD as told:
        seeded(1029)(start_process)()
    assert __file__ in {w.filename for w in told if "worker processes" in str(w.message)}
    with TOLD, Stream(1029):
        start_process()


def test_a_generator_warns_at_its_step():
    @seeded(1029)
    def steps():
        start_process()
        yield
        yield

    running = steps()
    with TOLD:
        next(running)
    next(running)

    @seeded(1029)
    def ends():
        start_process()
        return
        yield

    with TOLD:
        list(ends())


def test_the_block_that_started_them_warns_alone():
    with seeded(1):
        with TOLD, seeded(2):
            start_process()
        random.random()


def test_a_thread_of_the_block_starts_them_too():
    with TOLD, seeded(1029):
        run_in_thread(start_process)


def test_a_forked_child_that_leaves_the_block_is_silent():
    """Its parent tells of the processes."""
    block = seeded(1029)
    block.__enter__()
    start_process()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            warnings.simplefilter("error")
            block.__exit__(None, None, None)
            status = 0
        finally:
            os._exit(status)
    with TOLD:
        block.__exit__(None, None, None)
    assert os.waitpid(child, 0)[1] == 0


def test_isolation_inside_a_block_hides_no_processes():
    with TOLD, seeded(1029), isolated():
        start_process()
    with isolated():
        start_process()  # no seed is promised


def double(seed):
    return 2.0 * seed + np.random.rand()


def test_loaders_sweeps_and_managers_are_not_warned_of():
    with seeded(1029):
        dataset = TensorDataset(torch.arange(4.0))
        list(DataLoader(dataset, num_workers=2, multiprocessing_context="fork"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the best seed may be only luck")
            with ProcessPoolExecutor(2, FORK) as pool:
                sweep(double, 4, executor=pool, progress=False)
        with multiprocessing.get_context("fork").Manager() as manager:
            manager.list([1])
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    with TOLD as told, seeded(1029), ProcessPoolExecutor(1, FORK) as pool:
        sweep(double, 2, executor=pool, progress=False)
        start_process()  # the sweep has ended
    assert "block (1)" in " ".join(str(w.message) for w in told)


def test_workers_that_were_started_before_are_not_seen():
    """The limit that known issues name."""
    with ProcessPoolExecutor(1, FORK) as pool:
        pool.submit(work).result()
        with seeded(1029):
            pool.submit(work).result()


def test_an_error_in_the_block_is_not_hidden_by_the_warning():
    @seeded(1029)
    def fail():
        start_process()
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_warning_that_is_an_error_leaves_the_outer_state():
    before, start = snapshot(), BaseProcess.start
    with pytest.raises(UserWarning, match="worker processes"):
        seeded(1029)(lambda: (random.random(), start_process()))()
    assert snapshot() == before
    assert BaseProcess.start is start


def seeded_work(seed):
    with seeded(seed):
        return np.random.rand(), torch.rand(1).item()


def test_a_seed_for_each_task_repeats_with_any_number_of_workers():
    def run(workers):
        with seeded(1029) as scope:
            seeds = [scope.derive("task", i) for i in range(6)]
            if not workers:
                return [*map(seeded_work, seeds)]
            with ProcessPoolExecutor(workers, FORK) as pool:
                return [*pool.map(seeded_work, seeds)]

    expected = run(0)
    assert len(set(expected)) == 6
    for workers in (1, 3):
        with TOLD:
            assert run(workers) == expected


def seed_worker(seed, ranks):
    rank = ranks.get()
    seeded(derive_seed(seed, "worker", rank)).__enter__()


def test_an_initializer_seeds_each_worker():
    def run():
        ranks = FORK.SimpleQueue()
        ranks.put(0)
        with (
            seeded(1029) as scope,
            FORK.Pool(1, initializer=seed_worker, initargs=(scope.derive("pool"), ranks)) as pool,
        ):
            return pool.map(work, range(4))

    with TOLD:
        first = run()
    with TOLD:
        assert run() == first


def test_the_warning_counts_the_processes():
    assert "block (3)" in WORKERS.format(count=3)
