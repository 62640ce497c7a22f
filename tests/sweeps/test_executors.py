"""`sweep` on executors: the same values as in one process."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from helpers import PROGRAMS, ROOT, table
from seedscope import RunLog, SweepBroken, seeded, snapshot, sweep
from sweep_functions import draws, draws_for_long, sometimes_fails

pytestmark = pytest.mark.filterwarnings("ignore:the best seed may be only luck")


def expected_table() -> list[tuple]:
    return table(sweep(draws, 6))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_give_the_values_of_one_process(method):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert table(sweep(draws, 6, executor=pool)) == expected_table()
        with pytest.warns(UserWarning, match="2 of 8 seeds failed"):
            result = sweep(sometimes_fails, 8, executor=pool)
        assert [o.seed for o in result.failed] == [3, 7]


def test_loky_gives_the_values_of_one_process():
    loky = pytest.importorskip("loky")
    with loky.ProcessPoolExecutor(2) as pool:
        assert table(sweep(draws, 6, executor=pool)) == expected_table()
        offset = 10.0  # a closure, which loky can pickle
        assert table(sweep(lambda s: s + offset, 3, executor=pool)) == [
            (s, s + 10.0, None) for s in range(3)
        ]


@pytest.fixture
def dask_may_change_this_process():
    """Dask draws from `random`, and sets PYTHONHASHSEED for its workers."""
    before = snapshot()
    yield
    before.restore()


def test_dask_gives_the_values_of_one_process(monkeypatch, tmp_path, dask_may_change_this_process):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", f"{PROGRAMS}{os.pathsep}{ROOT}")
    with (
        distributed.LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        log = RunLog(tmp_path / "runs.jsonl")
        result = sweep(draws_for_long, 6, executor=client.get_executor(), log=log)
        # Dask gives its workers one thread for OpenMP; the run has as many as this process.
        assert {run.notes["threads"] for run in log} == {torch.get_num_threads()}
    assert table(result) == table(sweep(draws_for_long, 6))
    assert len({run.process for run in log}) > 1


def test_mpi_gives_the_values_of_one_process(tmp_path):
    pytest.importorskip("mpi4py")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("needs mpiexec, of the package mpich")
    script = tmp_path / "swept.py"
    script.write_text(
        """
from mpi4py.futures import MPIPoolExecutor
from seedscope import sweep
from sweep_functions import draws

if __name__ == "__main__":
    with MPIPoolExecutor() as pool:
        for executor in (pool, None):
            print([(o.seed, o.value, o.error) for o in sweep(draws, 6, executor=executor)])
"""
    )
    command = [mpiexec, "-n", "3", sys.executable, "-W", "ignore", "-m", "mpi4py.futures", script]
    environment = {**os.environ, "PYTHONPATH": f"{PROGRAMS}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    there, here = done.stdout.splitlines()
    assert there == here


def test_a_thread_pool_is_not_used_and_a_warning_says_so():
    with ThreadPoolExecutor(4) as pool, pytest.warns(UserWarning, match="ran here one after"):
        found = table(sweep(draws, 6, executor=pool))
    assert found == expected_table()
    # The same where this thread holds a scope, for which the pool's threads would wait.
    with ThreadPoolExecutor(4) as pool, seeded(1), pytest.warns(UserWarning, match="ran here"):
        assert table(sweep(draws, 6, executor=pool)) == found


def test_an_executor_that_breaks_raises_and_keeps_logged_seeds(tmp_path):
    context = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(1, mp_context=context) as pool,
        pytest.raises(SweepBroken, match="pool") as broken,
    ):
        sweep(die_at_3, 6, executor=pool, log=tmp_path / "runs.jsonl")
    assert isinstance(broken.value.__cause__, BrokenProcessPool)
    assert [o.value for o in broken.value.sweep] == [0, 1, 2][: len(broken.value.sweep)]
    seeds = {run.seed for run in RunLog(tmp_path / "runs.jsonl")}
    assert seeds <= {0, 1, 2}


def die_at_3(seed: int) -> float:
    if seed == 3:
        time.sleep(0.2)
        os._exit(1)
    return float(seed)
