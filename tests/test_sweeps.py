"""`sweep`: the same values on every executor, resumed, summed up, and drawn."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import multiprocessing
import os
import pty
import random
import re
import signal
import statistics
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, seedscope_command
from sweep_functions import draws, draws_for_long, not_a_number, sometimes_fails, tensor

from seedscope import RunLog, SweepBroken, SweepInterrupted, note, seeded, snapshot, sweep
from seedscope.sweeps.luck import Luck
from seedscope.sweeps.result import Outcome, Sweep

pytestmark = pytest.mark.filterwarnings("ignore:the best seed may be only luck")
TESTS = Path(__file__).parent


def table(result: Sweep) -> list[tuple]:
    return [(o.seed, o.value, o.error) for o in result]


# ------------------------------------------------------------------------- one process


def test_each_seed_runs_in_a_scope_of_its_own_and_nothing_happens_outside():
    before = snapshot()
    result = sweep(draws, range(5, 8))
    assert before.changed(snapshot()) == ()
    for outcome in result:
        with seeded(outcome.seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert outcome.value == draws()
        assert outcome.error is None and outcome.duration > 0
    assert [o.seed for o in result] == [5, 6, 7] and len(result) == 3


def test_a_function_gets_the_seed_if_it_asks_for_it():
    def with_default(seed=7):
        return seed

    def optional(rate=0.5):
        return rate

    assert [o.value for o in sweep(lambda s: s, 3)] == [0, 1, 2]
    assert [o.value for o in sweep(with_default, 3)] == [0, 1, 2]
    assert [o.value for o in sweep(optional, 3)] == [0.5] * 3

    def second(rate, seed=0):
        return rate * 100 + seed

    def by_name_alone(rate=0.5, *, seed=7):
        return seed

    assert [o.value for o in sweep(functools.partial(pow, 2), 3)] == [1, 2, 4]
    assert [o.value for o in sweep(by_name_alone, 3)] == [0, 1, 2]
    assert [o.value for o in sweep(functools.partial(second, rate=1), 3)] == [100, 101, 102]
    with pytest.raises(TypeError, match=r"or fn\(\): missing a required argument: 'rate'"):
        sweep(second, 3)


def test_values_keep_their_type():
    result = sweep(tensor, [3])
    assert isinstance(result[0].value, torch.Tensor)
    with seeded(3):
        assert torch.equal(result[0].value, tensor(3))


@pytest.mark.parametrize("seeds", [0, [], [1, 1], -1, [-1], [0.5], "12", True, None])
def test_wrong_seeds_are_refused_before_anything_runs(seeds):
    ran = []
    with pytest.raises((TypeError, ValueError)):
        sweep(lambda: ran.append(1), seeds)
    assert not ran


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"fn": 3}, "expected a function, got 3"),
        ({"fn": lambda a, b: 1}, "must be callable as fn(seed) or fn(): "),
        ({"fn": draws, "best": "most"}, 'best must be "min" or "max", got \'most\''),
        ({"fn": draws, "deterministic": "very"}, "deterministic must be"),
        ({"fn": draws, "threads": 0}, "threads must be a positive integer, got 0"),
        ({"fn": lambda: 1, "log": "x.jsonl"}, "the log needs a name for <function"),
    ],
)
def test_wrong_arguments_are_refused(arguments, says):
    with pytest.raises((TypeError, ValueError), match=re.escape(says)):
        sweep(**arguments)


def test_a_seed_that_raises_is_kept_with_its_traceback_and_the_others_go_on():
    with pytest.warns(UserWarning, match="2 of 8 seeds failed, the first is 3:\nTraceback"):
        result = sweep(sometimes_fails, 8, best="max")
    assert [o.seed for o in result.failed] == [3, 7]
    assert "diverged at seed 3" in result.failed[0].error
    assert "sometimes_fails" in result.failed[0].error
    assert result.best == Outcome(5, 5.0, None, result[5].duration)
    assert result.values.tolist() == [0, 1, 4, 5]
    assert "failed     2; seed 3: ValueError: diverged at seed 3" in str(result)
    assert "not finite 2, left out below" in str(result)


def test_what_is_no_number_is_that_seeds_error():
    with pytest.warns(UserWarning, match="must return a number, got '0.5'"):
        result = sweep(not_a_number, 2)
    assert len(result.failed) == 2 and result.best is None
    assert "best" not in str(result)


@pytest.mark.parametrize("wrong", [10**400, asyncio.CancelledError(), SystemExit(3), math.inf])
def test_no_seed_costs_the_others_their_results(wrong):
    def run(seed):
        if seed != 1:
            return float(seed)
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sweep(run, 4)
    assert result.values.tolist() == [0, 2, 3]
    assert len(result.failed) == (wrong != math.inf)
    assert np.isfinite([result.mean, *result.interval(), *result.quantiles().values()]).all()
    assert "not finite 1" in str(result) or wrong != math.inf


def test_ctrl_c_keeps_what_is_done_and_leaves_the_scope():
    def stopped(seed):
        if seed == 3:
            raise KeyboardInterrupt
        return seed

    before = snapshot()
    with pytest.raises(SweepInterrupted, match="stopped after 3 seeds") as caught:
        sweep(stopped, 10)
    assert before.changed(snapshot()) == ()
    assert [o.value for o in caught.value.sweep] == [0, 1, 2]
    assert isinstance(caught.value, KeyboardInterrupt)


def test_a_sweep_inside_a_scope_and_inside_a_sweep():
    def inner(seed):
        return sweep(lambda: torch.rand(1).item(), [seed, seed + 100]).mean

    with seeded(1):
        expected = torch.rand(1).item()
    with seeded(1):
        first = sweep(inner, 3)
        assert torch.rand(1).item() == expected
    assert table(first) == table(sweep(inner, 3))


# --------------------------------------------------------------------------- executors


def expected_table() -> list[tuple]:
    return table(sweep(draws, 6))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_give_what_one_gives(method):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert table(sweep(draws, 6, executor=pool)) == expected_table()
        with pytest.warns(UserWarning, match="2 of 8 seeds failed"):
            result = sweep(sometimes_fails, 8, executor=pool)
        assert [o.seed for o in result.failed] == [3, 7]


def test_loky_gives_what_one_process_gives():
    loky = pytest.importorskip("loky")
    with loky.ProcessPoolExecutor(2) as pool:
        assert table(sweep(draws, 6, executor=pool)) == expected_table()
        offset = 10.0  # a closure, which loky can pickle
        assert table(sweep(lambda s: s + offset, 3, executor=pool)) == [
            (s, s + 10.0, None) for s in range(3)
        ]


@pytest.fixture
def dask_may_change_this_process():
    """It draws from `random`, and sets PYTHONHASHSEED for its workers."""
    before = snapshot()
    yield
    before.restore()


def test_dask_gives_what_one_process_gives(monkeypatch, tmp_path, dask_may_change_this_process):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{ROOT}")
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
        # Dask gives its workers one thread for OpenMP; the run has as many as here.
        assert {run.notes["threads"] for run in log} == {torch.get_num_threads()}
    assert table(result) == table(sweep(draws_for_long, 6))
    assert len({run.process for run in log}) > 1


def test_mpi_gives_what_one_process_gives(tmp_path):
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
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    there, here = done.stdout.splitlines()
    assert there == here


def test_threads_are_not_used_and_it_says_so():
    with ThreadPoolExecutor(4) as pool, pytest.warns(UserWarning, match="ran here one after"):
        found = table(sweep(draws, 6, executor=pool))
    assert found == expected_table()
    # Also where this thread holds a scope, which the pool's would wait for.
    with ThreadPoolExecutor(4) as pool, seeded(1), pytest.warns(UserWarning):
        assert table(sweep(draws, 6, executor=pool)) == found


def test_an_executor_that_breaks_raises_and_keeps_what_was_logged(tmp_path):
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


# --------------------------------------------------------------------------- the log


def test_a_sweep_goes_on_from_its_log(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    with pytest.warns(UserWarning, match="1 of 5 seeds failed"):
        first = sweep(sometimes_fails, 5, log=log)
    size = os.path.getsize(log.path)
    with pytest.warns(UserWarning, match="1 of 5 seeds failed"):
        again = sweep(sometimes_fails, 5, log=log)
    assert os.path.getsize(log.path) == size  # nothing was run
    assert str([*again]) == str([*first])  # NaN, traceback and durations included
    with pytest.warns(UserWarning):
        more = sweep(sometimes_fails, 9, log=log)
    assert len([*log]) == 9 and [o.seed for o in more] == [*range(9)]


def test_a_sweep_takes_nothing_from_another_function_or_other_options(tmp_path):
    log = tmp_path / "runs.jsonl"
    sweep(draws, 3, log=log)
    sweep(tensor, 3, log=log)
    sweep(draws, 3, log=log, deterministic=False)
    sweep(draws, 3, log=log, name="other")
    with seeded(1, log=log):
        note(value=1)
    assert len([*RunLog(log)]) == 13
    assert table(sweep(draws, 3, log=log)) == table(sweep(draws, 3))


def test_outcomes_of_other_code_versions_or_threads_are_run_again_and_it_says_so(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    sweep(draws, 3, log=log)
    text = Path(log.path).read_text()
    changes = [
        (f'"torch":"{torch.__version__}"', '"torch":"1.0"', r"torch was 1\.0, is .*"),
        ('"script_sha256":"', '"script_sha256":"0', "the script has changed"),
        (f'"threads":{torch.get_num_threads()},', '"threads":77,', "threads was 77, is .*"),
    ]
    for now, then, said in changes:
        Path(log.path).write_text(text.replace(now, then))
        with pytest.warns(UserWarning, match=rf"3 outcomes .*{said}\): these seeds run again"):
            sweep(draws, 3, log=log)
        assert len([*log]) == 6


def test_another_function_of_the_same_name_is_another_function(tmp_path):
    log = tmp_path / "runs.jsonl"
    namespace = {"__name__": "changing"}
    values = []
    for body in ("seed + 100", "-seed"):
        exec(f"def f(seed): return {body}", namespace)
        values.append([o.value for o in sweep(namespace["f"], 3, log=log, name="changing:f")])
    assert values == [[100, 101, 102], [0, -1, -2]]


def test_outcomes_of_another_commit_are_used_and_it_says_so(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    sweep(draws, 3, log=log)
    text = Path(log.path).read_text()
    git = re.search(r'"git":(null|{[^}]*})', text)[0]
    Path(log.path).write_text(text.replace(git, '"git":{"commit":"abc","dirty":true}'))
    with pytest.warns(
        UserWarning, match=r"3 outcomes .*commit was abc, is .*\): the sweep uses them"
    ):
        sweep(draws, 3, log=log)
    assert len([*log]) == 3


def test_threads_are_those_asked_for():
    before = torch.get_num_threads()
    assert [o.value for o in sweep(torch.get_num_threads, 2, threads=before + 1)] == [
        before + 1
    ] * 2
    assert torch.get_num_threads() == before


def test_the_functions_notes_are_kept_beside_its_value(tmp_path):
    log = tmp_path / "runs.jsonl"
    result = sweep(draws, 2, log=log)
    assert [run.notes["value"] for run in RunLog(log)] == [o.value for o in result]
    assert [run.notes["threads"] for run in RunLog(log)] == [torch.get_num_threads()] * 2
    assert {run.sweep for run in RunLog(log)} == {"sweep_functions:draws"}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_sweep_killed_at_any_point_runs_only_what_is_missing(processes, tmp_path):
    marks = tmp_path / "marks"
    marks.touch()
    command = [sys.executable, "-m", "seedscope", "sweep", "sweep_functions:counted", "--csv"]
    command += [
        "--seeds",
        "40",
        "--processes",
        str(processes),
        "--log",
        str(tmp_path / "runs.jsonl"),
    ]
    environment = {**os.environ, "MARKS": str(marks), "PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}"}
    kills = 0
    for _ in range(3):
        done_before = marks.read_text().count("x")
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        while marks.read_text().count("x") < done_before + 6 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.Random().random() / 20)
        if process.poll() is None:
            kills += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    # Each kill loses at most the seeds that were running or on their way home.
    assert marks.read_text().count("x") <= 40 + kills * 3 * processes
    rows = [line.split(",")[:2] for line in done.stdout.splitlines()[1:]]
    expected = {str(o.seed): str(o.value) for o in sweep(lambda: torch.rand(1).item(), 40)}
    assert dict(rows) == expected and len(rows) == 40


def test_ctrl_c_on_the_command_line_says_what_is_kept(tmp_path):
    command = [sys.executable, "-m", "seedscope", "sweep", "sweep_functions:slow", "--seeds", "400"]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    log = RunLog(tmp_path / "runs.jsonl")
    while len([*log]) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130
    count = len([*log])
    assert said == (
        f"seedscope: stopped after {count} seeds, kept in runs.jsonl: "
        "the same command resumes the sweep\n"
    )
    assert out.startswith("sweep of sweep_functions:slow") and f"seeds      {count}," in out


# ------------------------------------------------------------------------- statistics


def of(*values: float, best="max") -> Sweep:
    return Sweep("f", [Outcome(i, v, None, 1.0) for i, v in enumerate(values)], best)


def test_statistics_are_those_of_the_values():
    values = [0.5, 0.25, 1.0, 0.75, 0.125]
    result = of(*values)
    assert result.mean == statistics.mean(values)
    assert result.deviation == pytest.approx(statistics.stdev(values))
    assert result.quantiles([0, 0.5, 1]) == {0: 0.125, 0.5: 0.5, 1: 1.0}
    assert result.best.seed == 2 and of(*values, best="min").best.seed == 4
    one = of(0.5)
    assert one.mean == 0.5 and np.isnan(one.deviation) and np.isnan(one.interval()[0])
    assert one.luck() is None and of(1, 1, 1).luck() is None


def test_the_interval_of_the_mean_is_the_bootstrap_that_scipy_gives():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.Generator(np.random.PCG64(5)).normal(3, 2, 60)
    low, high = of(*values).interval(0.9)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=0.9,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.Generator(np.random.PCG64(6)),
    ).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.03)
    assert high == pytest.approx(theirs.high, abs=0.03)
    assert of(*values).interval() == of(*values).interval()


def test_luck_is_measured_against_the_best_of_as_many_draws():
    # The expected best of n draws, by simulation.
    generator = np.random.Generator(np.random.PCG64(5))
    for n in (5, 100):
        values = generator.normal(10, 2, n)
        luck = of(*values).luck()
        draws = generator.normal(values.mean(), values.std(ddof=1), (20_000, n)).max(axis=1)
        assert luck.expected == pytest.approx(np.median(draws), abs=0.08)
        assert luck.chance == pytest.approx((draws >= values.max()).mean(), abs=0.02)
        assert luck.distance == pytest.approx(
            (values.max() - np.median(draws)) / values.std(ddof=1), abs=0.05
        )
        mirrored = of(*-values, best="min").luck()
        assert mirrored == Luck(n, -luck.expected, luck.distance, luck.chance, luck.skewness)


def test_luck_is_said_when_it_is_all_and_not_when_it_is_not():
    generator = np.random.Generator(np.random.PCG64(5))
    ordinary = generator.normal(10, 2, 50)
    assert of(*ordinary).luck().is_all
    assert "nothing says that" in " ".join(str(of(*ordinary)).split())
    outstanding = of(*ordinary, 30.0)
    assert not outstanding.luck().is_all
    assert "nothing says" not in " ".join(str(outstanding).split())
    values = iter(ordinary)
    with pytest.warns(UserWarning, match="the best seed may be only luck: the best of 50 draws"):
        sweep(lambda: next(values), 50)


def test_skewed_values_are_said_to_be_compared_roughly():
    generator = np.random.Generator(np.random.PCG64(5))
    assert "so this comparison is a rough guide" in " ".join(
        str(of(*generator.exponential(1, 200))).split()
    )
    assert "rough guide" not in str(of(*generator.normal(0, 1, 200)))


def test_few_seeds_from_one_distribution_hardly_ever_look_like_more_than_luck():
    generator = np.random.Generator(np.random.PCG64(5))
    for n in (3, 5, 10, 100):
        alarms = sum(not of(*generator.normal(0, 1, n)).luck().is_all for _ in range(300))
        assert alarms <= 24  # 15 were as many as one time in 20


# ---------------------------------------------------------------------- what people see


def test_a_notebook_and_pandas_show_every_outcome():
    with pytest.warns(UserWarning):
        result = sweep(sometimes_fails, 5)
    frame = result.to_pandas()
    assert frame["seed"].tolist() == [0, 1, 2, 3, 4]
    assert frame["error"].notna().tolist() == [False, False, False, True, False]
    assert [*frame.columns] == ["seed", "value", "error", "duration"]
    assert frame["value"].dtype == "float64"
    shown = result._repr_html_()
    assert "<table>" in shown and "seed 3: ValueError: diverged" in shown
    assert "&lt;b&gt;" in Sweep("<b>", [], "min")._repr_html_()


@pytest.mark.parametrize("name", ["seeds.png", "seeds.svg"])
def test_a_plot_is_drawn(name, tmp_path):
    generator = np.random.Generator(np.random.PCG64(5))
    for values in ([1.0], [1.0, 1.0, 1.0], generator.normal(size=50)):
        of(*values).plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    with pytest.raises(ValueError, match="there is nothing to plot"):
        Sweep("f", [], "min").plot(tmp_path / name)


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=re.escape('pip install "seedscope[plot]"')):
        of(1.0).plot("x.png")


def test_the_command_prints_the_table_json_and_a_plot(tmp_path):
    (tmp_path / "work.py").write_text("def loss(seed): return 1 / (seed + 1)\n")
    command = ["sweep", "work.py:loss", "--seeds", "2:6", "--plot", "seeds.png"]
    done = seedscope_command(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "best       0.166667 (min), seed 5" in done.stdout
    assert done.stderr == "seedscope: plot written to seeds.png\n"
    assert (tmp_path / "seeds.png").exists()
    done = seedscope_command(*command[:4], "--json", cwd=tmp_path)
    assert [row["value"] for row in json.loads(done.stdout)] == [1 / 3, 1 / 4, 1 / 5, 1 / 6]


def test_on_a_terminal_the_time_left_is_shown_and_in_a_pipe_nothing(tmp_path):
    command = [sys.executable, "-c", "from seedscope import sweep; import sweep_functions as f;"]
    command[-1] += "sweep(f.slow, 20)"
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}", "TERM": "xterm"}
    environment["PYTHONWARNINGS"] = "ignore"
    parent, child = pty.openpty()
    process = subprocess.Popen(command, stderr=child, env=environment)
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(parent)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "sweep_functions:slow" in text and "10/20" in text and "left 0:00:0" in text
    quiet = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    assert quiet.stderr == quiet.stdout == b""
