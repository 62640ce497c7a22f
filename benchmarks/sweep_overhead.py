"""The cost of the run log and of `sweep`: reading, logging, a seed of a sweep, and speed-up."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from seedscope import RunLog, seeded, sweep

from .harness import (
    environment,
    measure,
    paired,
    parse,
    progress,
    save,
    show,
    suite_parser,
    summary,
)

SEED = 1029
PROCESSES = 4
SERIAL, PLAIN, SWEPT = "one process", "the executor alone", "sweep on the executor"


def work() -> float:
    """Work for about 10 ms on one core."""
    total = 0.0
    for _ in range(30):
        total += float(torch.randn(100_000).sum())
    return total


def work_of(seed: int) -> float:
    """Work as a user of the executor alone would write it."""
    torch.set_num_threads(1)
    with seeded(seed):
        return work()


def nothing() -> float:
    return 0.0


def collect(quick: bool) -> dict[str, Any]:
    """Return all results of this suite, ready for JSON."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that the best seed is luck
        return environment("cpu") | {
            "quick": quick,
            "reading": _reading(Path(folder), 3 if quick else 9),
            "microseconds": _microseconds(Path(folder), 5 if quick else 40),
            "speed_up": _speed_up(3 if quick else 9),
        }


def _reading(folder: Path, rounds: int, records: int = 100_000) -> dict[str, Any]:
    """Return the seconds to read a log of 100,000 ended runs, two lines each."""
    one = RunLog(folder / "one.jsonl")
    with seeded(SEED, log=one) as scope:
        scope.note(loss=0.12, epoch=3)
    text = Path(one.path).read_text()
    many = folder / "many.jsonl"
    with open(many, "w") as file:
        for _ in range(records):
            file.write(text)
    seconds = []
    for number in range(rounds):
        progress(f"reading {number + 1} of {rounds}")
        begin = time.perf_counter()
        count = sum(1 for _ in RunLog(many))
        seconds.append(time.perf_counter() - begin)
        assert count == records
    megabytes = many.stat().st_size / 1e6
    return {"seconds": summary(seconds), "records": records, "megabytes": megabytes}


def _microseconds(folder: Path, rounds: int, seeds: int = 20) -> dict[str, Any]:
    """Return microseconds of a block and of a sweep's seed, with and without a log; and by hand."""
    files = iter(range(10**9))

    def by_hand() -> None:
        for seed in range(seeds):
            with seeded(seed):
                nothing()

    def fresh_log() -> Path:
        return folder / f"{next(files)}.jsonl"

    def block() -> None:
        with seeded(SEED):
            pass

    log = RunLog(fresh_log())

    def logged_block() -> None:
        with seeded(SEED, log=log):
            pass

    arms: dict[str, tuple[Callable[[], object], int]] = {
        "with seeded(1029)": (block, 1),
        "with seeded(1029, log=...)": (logged_block, 1),
        "a loop of seeds by hand": (by_hand, seeds),
        "sweep": (lambda: sweep(nothing, seeds, progress=False), seeds),
        "sweep with a log": (lambda: sweep(nothing, seeds, log=fresh_log()), seeds),
    }
    samples = measure({name: call for name, (call, _) in arms.items()}, rounds=rounds, block_s=0.02)
    return {
        name: summary(us / arms[name][1] for us in values) for name, values in samples[0].items()
    }


def _speed_up(rounds: int, seeds: int = 60) -> dict[str, Any]:
    """Return seconds for the same seeds: in one process, and in four in two ways, interleaved."""
    samples: dict[str, list[float]] = {SERIAL: [], PLAIN: [], SWEPT: []}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        arms: dict[str, Callable[[], list[Any]]] = {
            SERIAL: lambda: [work_of(seed) for seed in range(seeds)],
            PLAIN: lambda: [*pool.map(work_of, range(seeds))],
            SWEPT: lambda: [outcome.value for outcome in sweep(work, seeds, executor=pool)],
        }
        expected = [arm() for arm in arms.values()]  # starts the workers
        assert expected[0] == expected[1] == expected[2]
        for number in range(rounds):
            progress(f"speed-up, round {number + 1} of {rounds}")
            for name, arm in arms.items():
                begin = time.perf_counter()
                arm()
                samples[name].append(time.perf_counter() - begin)
    return {
        "seeds": seeds,
        "processes": PROCESSES,
        "seconds": {name: summary(values) for name, values in samples.items()},
        "executor_alone": paired(samples[SERIAL], samples[PLAIN]),
        "sweep": paired(samples[SERIAL], samples[SWEPT]),
        "share": paired(samples[PLAIN], samples[SWEPT]),
    }


def show_report(report: dict[str, Any]) -> None:
    quick = ", quick" * report["quick"]
    print(f"sweep_overhead on {report['device']}, {report['date']}{quick}")
    for name, text in report["versions"].items():
        print(f"  {name}: {text}")
    spread = ("median", "q1", "q3", "min")

    def rows(cases: dict[str, dict[str, float]], digits: int) -> list[list[str]]:
        return [[n, *(f"{of[key]:.{digits}f}" for key in spread)] for n, of in cases.items()]

    show("each block or seed", ["microseconds", *spread], rows(report["microseconds"], 0))
    speed_up = report["speed_up"]
    each_ms = speed_up["seconds"][SERIAL]["median"] / speed_up["seeds"] * 1e3
    title = (
        f"{speed_up['seeds']} seeds of {each_ms:.0f} ms, {speed_up['processes']} processes, "
        "1 thread each"
    )
    show(title, ["seconds", *spread], rows(speed_up["seconds"], 3))
    reading = report["reading"]
    seed_ms = report["microseconds"]["sweep with a log"]["median"] / 1e3
    aims = [
        [
            f"reading {reading['records']:,} runs ({reading['megabytes']:.0f} MB), s",
            f"{reading['seconds']['median']:.2f}",
            "at most 2",
        ],
        ["a seed of a sweep with a log, ms", f"{seed_ms:.2f}", "at most 1"],
        [
            "sweep's share of the executor's speed-up "
            f"({speed_up['sweep']['median']:.2f} of {speed_up['executor_alone']['median']:.2f})",
            f"{speed_up['share']['median']:.2f}",
            "at least 0.9",
        ],
    ]
    show("aims", ["", "measured", "aim"], aims)


def main(arguments: list[str]) -> int:
    parser = suite_parser("sweep_overhead", __doc__)
    options = parse(parser, arguments)
    torch.set_num_threads(1)
    report = collect(options.quick)
    show_report(report)
    print(f"\nwritten: {save('sweep_overhead_cpu', report, options.out)}")
    return 0
