"""Helpers of several test files."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import fake_accelerator
from seedscope import seeded
from seedscope.replacements.gate import GATE

if TYPE_CHECKING:  # a test that uses `draw` needs its scope to import the log first
    from seedscope import RunLog
    from seedscope.sweeps.result import Sweep

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PROGRAMS = TESTS / "programs"
# Made-up figures, for the tests that draw figures.
MADE_UP = TESTS / "data" / "made_up_results"


def draw() -> tuple:
    """One value from each source that this machine has."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.standard_normal(),
        torch.rand(1).item(),
        fake_accelerator.FAKE.rand(),
        np.random.default_rng().random(),
        random.Random().random(),
    )


def enter() -> tuple:
    """Return the draws of a scope that a test opens where another may be open."""
    with seeded(5):
        return draw()


def run_in_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _in_child(connection, function):
    try:
        connection.send(function())
    except BaseException as error:
        connection.send(repr(error))


def run_in_fork(function, timeout=30):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_child, args=(theirs, function))
    process.start()
    assert ours.poll(timeout)
    result = ours.recv()
    process.join(30)
    return result


def run_python(code: str, *arguments: str, timeout: int = 120, **options) -> str:
    """Return the output of `code` in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        **options,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def seedscope_command(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run `seedscope ARGUMENTS` in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-m", "seedscope", *arguments],
        **{"capture_output": True, "text": True, "timeout": 120, **options},
    )


def benchmarks_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks ARGUMENTS`, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        # Two threads would wait for each other on a CPU that runs other tests.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done


def git(folder: Path, *arguments: str) -> str:
    """Return the output of git, which commits under a made-up name."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", folder, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Lottery:
    """A user's own source, with only the methods that it needs."""

    name = "lottery"

    def __init__(self) -> None:
        self.state = 7

    def capture(self):
        return self.state

    def seed(self, seed):
        self.state = seed

    def restore(self, state):
        self.state = state

    def draw(self):
        self.state = self.state * 6364136223846793005 % 2**61
        return self.state


def lines(log: RunLog) -> list[dict]:
    """The lines of a log as JSON objects."""
    with open(log.path) as file:
        return [json.loads(line) for line in file]


def table(result: Sweep) -> list[tuple]:
    """The seed, value and error of each outcome of a sweep."""
    return [(o.seed, o.value, o.error) for o in result]


def sweep_of(*values: float, best="max") -> Sweep:
    """A sweep with these values."""
    from seedscope.sweeps.result import Outcome, Sweep

    return Sweep("f", [Outcome(i, v, None, 1.0) for i, v in enumerate(values)], best)


def read_publicly(name: str) -> Any:
    """Read a setting through the public interface of its owner."""
    backends = torch.backends
    readers = {
        "deterministic_algorithms": torch.get_deterministic_debug_mode,
        "replacements": lambda: GATE.is_open,  # no public call tells
        "fill_uninitialized_memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,
        "matmul.precision": torch.get_float32_matmul_precision,
        "attention.flash": backends.cuda.flash_sdp_enabled,
        "attention.mem_efficient": backends.cuda.mem_efficient_sdp_enabled,
        "attention.math": backends.cuda.math_sdp_enabled,
        "attention.cudnn": backends.cuda.cudnn_sdp_enabled,
        "attention.math_reduced_precision": backends.cuda.fp16_bf16_reduction_math_sdp_allowed,
        "fp32_precision.generic.all": lambda: backends.fp32_precision,
        "fp32_precision.cuda.all": lambda: backends.cudnn.fp32_precision,
        "fp32_precision.mkldnn.all": lambda: backends.mkldnn.fp32_precision,
        "fp32_precision.cuda.matmul": lambda: backends.cuda.matmul.fp32_precision,
        "fp32_precision.cuda.conv": lambda: backends.cudnn.conv.fp32_precision,
        "fp32_precision.cuda.rnn": lambda: backends.cudnn.rnn.fp32_precision,
        "fp32_precision.mkldnn.matmul": lambda: backends.mkldnn.matmul.fp32_precision,
        "fp32_precision.mkldnn.conv": lambda: backends.mkldnn.conv.fp32_precision,
        "fp32_precision.mkldnn.rnn": lambda: backends.mkldnn.rnn.fp32_precision,
    }
    if name in readers:
        return readers[name]()
    group, _, flag = name.partition(".")
    if not flag:
        return os.environ.get(name)
    holder = backends.cuda.matmul if group == "matmul" else getattr(backends, group)
    value = getattr(holder, flag)
    if hasattr(holder, "__getattr__") and flag.endswith("reduction"):
        try:
            return value, getattr(holder, flag + "_split_k")
        except AttributeError:  # older torch has one value for both
            return value, value
    return value


def skip_where_the_cpu_has_no_lstm_in_bf16() -> None:
    """Under autocast, torch 2.13 raises for an LSTM on an AMD EPYC whose best set is AVX2."""
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.random.fork_rng(devices=[]):
            torch.nn.LSTM(8, 8, batch_first=True)(torch.zeros(2, 4, 8))
    except RuntimeError as error:
        if "could not create a primitive descriptor" not in str(error):
            raise
        pytest.skip(f"no LSTM in bf16 on this CPU: {error!s:.80}")
