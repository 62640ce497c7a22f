"""The cost of `SeededDataset` in a DataLoader: samples per second, and microseconds a sample.

The loaders augment images with an albumentations pipeline. Each loader is timed with and
without `SeededDataset` in one interleaved run: by the clock, which a busy machine blurs, and
by the CPU time of the processes that augment, which a busy machine blurs less. The cost alone
is timed on a dataset that does nothing, inside a real worker and in the main process: in a
loop, and after an augmentation, which leaves the caches as a real loader has them.

Whole epochs of `seeded_loader`, resuming in mid-epoch, the order, and the generators that a dataset
holds are timed in `data_loader`, `data_resume` and `data_held`, which say how.
"""

from __future__ import annotations

import gc
import os
import random
import time
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from seedscope import SeededDataset

from .data_held import held_aims, measure_held, show_held
from .data_loader import epoch_aims, measure_epochs, show_epochs
from .data_resume import measure_orders, measure_resuming, resume_aims, show_resuming
from .data_samples import (
    ANEW,
    BATCH,
    COLD,
    GIVEN,
    HOT,
    ONCE,
    PLAIN,
    SEEDED,
    SEEDED_PIPELINE,
    SEEDING,
    Augmented,
    TimedInWorker,
    costs,
    one_thread,
)
from .harness import (
    environment,
    paired,
    parse,
    progress,
    save,
    show,
    spread,
    suite_parser,
    summary,
)
from .peers import SEED

CASES = [(ONCE, 2), (ONCE, 0), (ANEW, 2), (GIVEN, 2)]


def collate(samples: list[torch.Tensor]) -> tuple[torch.Tensor, int, float]:
    """Return the batch, the process, and the seconds of CPU that the process has used so far."""
    return torch.stack(samples), os.getpid(), time.process_time()


class Both(Dataset[torch.Tensor]):
    """Two datasets of the same length, the second after the first."""

    def __init__(self, first: Augmented, second: SeededDataset) -> None:
        self.datasets = first, second
        self.length = len(first)

    def __getitem__(self, index: int) -> torch.Tensor:
        which, number = divmod(index, self.length)
        sample: torch.Tensor = self.datasets[which][number]
        return sample


class TimedLoader:
    """A loader that stays warm, and times epochs of either arm.

    The same workers draw both arms, because two loaders on the same dataset differed by 5 %
    of CPU. So the workers' sources were seeded before in the plain arm too.
    """

    def __init__(self, length: int, spelling: str, workers: int) -> None:
        plain = Augmented(length, spelling)
        self.seeded = SeededDataset(plain, SEED)
        self.length = length
        self.order: list[int] = []
        self.loader: DataLoader[Any] = DataLoader(
            Both(plain, self.seeded),
            BATCH,
            sampler=self.order,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            worker_init_fn=one_thread,
        )
        self.used: dict[int, float] = {}
        for arm in (SEEDED, PLAIN):
            self.epoch(arm)

    def epoch(self, arm: str) -> tuple[float, float]:
        """Return the seconds of one epoch: by the clock, and of CPU in the augmenting processes."""
        first = self.length if arm == SEEDED else 0
        self.order[:] = range(first, first + self.length)
        before = dict(self.used) if self.loader.num_workers else {os.getpid(): time.process_time()}
        begin = time.perf_counter()
        for _, process, used in self.loader:
            self.used[process] = used
        wall = time.perf_counter() - begin
        return wall, sum(self.used.values()) - sum(before.values())


def throughput(rounds: int, length: int) -> dict[str, Any]:
    """Return samples per second (also of CPU), ratios, and equality of bits, for each case.

    A round takes the cases in random order and four epochs of each: plain, seeded, seeded,
    plain, and the reverse in the next round, so that a drift of the machine affects both.
    """
    progress("starting the workers")
    loaders = {case: TimedLoader(length, *case) for case in CASES}
    times: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = {
        case: {PLAIN: [], SEEDED: []} for case in CASES
    }
    order = random.Random(SEED)
    gc.collect()
    gc.disable()  # as in `measure`; the workers, already started, still collect
    try:
        for number in range(rounds):
            first, second = (PLAIN, SEEDED) if number % 2 == 0 else (SEEDED, PLAIN)
            for case in order.sample(CASES, len(CASES)):
                # Each epoch draws other augmentations, so that no single draw is timed.
                loaders[case].seeded.set_epoch(number)
                for name in (first, second, second, first):
                    times[case][name].append(loaders[case].epoch(name))
            progress(f"round {number + 1} of {rounds}")
    finally:
        gc.enable()

    results: dict[str, Any] = {}
    for case in CASES:
        results[named(*case)] = result = {}
        for number, unit in enumerate(("wall", "cpu")):
            plain, own, usual = (
                [epoch[number] for epoch in epochs]
                for epochs in (times[case][PLAIN], times[case][SEEDED], times[ONCE, case[1]][PLAIN])
            )
            result[unit] = {
                # Samples per second, or per second of CPU.
                PLAIN: summary(length / seconds for seconds in plain),
                SEEDED: summary(length / seconds for seconds in own),
                "to_plain": paired(plain, own),
                "to_usual": paired(usual, own),
            }
        result["identical"] = identical(loaders[case])
    return results


def named(spelling: str, workers: int) -> str:
    return f"{spelling}, {workers} workers"


def identical(timed: TimedLoader) -> bool:
    """Return whether loader and dataset give the same bits; the dataset runs in this process."""
    timed.seeded.set_epoch(0)
    timed.order[:] = range(timed.length, 2 * timed.length)
    starts = range(0, timed.length, BATCH)
    own = (torch.stack([timed.seeded[i] for i in range(b, b + BATCH)]) for b in starts)
    # A list, because the loader's epoch must be drawn to its end.
    same = [torch.equal(batch, mine) for (batch, *_), mine in zip(timed.loader, own, strict=True)]
    return all(same)


def collect(quick: bool) -> dict[str, Any]:
    """Return everything that this suite measures, ready for JSON."""
    report = environment("cpu")
    for name in ("albumentations", "opencv-python", "opencv-python-headless"):
        with suppress(ModuleNotFoundError):
            report["versions"][name] = version(name)
    report |= {
        "quick": quick,
        "batch": BATCH,
        "start_method": torch.multiprocessing.get_start_method(),
    }
    rounds = 25 if quick else 200
    timed = TimedInWorker(partial(costs, rounds, in_worker=True))
    alone = DataLoader(timed, None, num_workers=1, worker_init_fn=one_thread)
    measured = {"worker": next(iter(alone)), "main process": costs(rounds, in_worker=False)}
    report["us_a_sample"] = {
        f"{where}, {how}": {
            name: summary(values)
            | {"above_plain": summary(a - b for a, b in zip(values, arms[PLAIN], strict=True))}
            for name, values in arms.items()
        }
        for where, both in measured.items()
        for how, arms in both.items()
    }
    report["us_a_generator"] = measure_held(quick)
    report["length"] = 64 if quick else 256
    report["samples_per_second"] = throughput(2 if quick else 24, report["length"])
    report["seeded_loader"] = measure_epochs(quick)
    report["resuming"] = measure_resuming(quick)
    report["order"] = measure_orders(quick)
    return report


def show_report(report: dict[str, Any]) -> None:
    print(f"data_throughput on {report['device']}, {report['date']}{', quick' * report['quick']}")
    for name, text in report["versions"].items():
        print(f"  {name}: {text}")
    titles = {"wall": "samples per second", "cpu": "samples per second of CPU, where augmented"}
    for unit, title in titles.items():
        rows = []
        for name, case in report["samples_per_second"].items():
            rates = [spread(case[unit][arm], 0) for arm in (PLAIN, SEEDED)]
            same = "yes" if case["identical"] else "no"
            rows.append([name, *rates, spread(case[unit]["to_plain"], 2), same])
        headers = ["pipeline", PLAIN, SEEDED, "to plain, paired", "same bits"]
        pairs = case[unit][PLAIN]["n"]
        title += f", {pairs} epochs of {report['length']}, batch {report['batch']}"
        show(title, headers, rows)
    rows = [
        [where, name, spread(arm, 1), f"{arm['above_plain']['median']:.1f}"]
        for where, arms in report["us_a_sample"].items()
        for name, arm in arms.items()
    ]
    headers = ["where", "arm", "time", "above plain"]
    show("microseconds a sample, of a dataset that does nothing", headers, rows)
    show_held(report["us_a_generator"])
    show_epochs(report["seeded_loader"])
    show_resuming(report["resuming"], report["order"])
    show("aims", ["", "measured", "aim"], aims(report))


def aims(report: dict[str, Any]) -> list[list[str]]:
    """Return each aim beside the measurement."""
    cases, alone = report["samples_per_second"], report["us_a_sample"]
    hot, cold = alone[f"worker, {HOT}"], alone[f"worker, {COLD}"]
    usual = cases[named(ONCE, 2)]

    def lost(case: dict[str, Any], key: str = "to_plain") -> str:
        percents = (f"{100 * (1 - case[unit][key]['median']):+.1f}" for unit in ("wall", "cpu"))
        return ", ".join(percents)

    share = cold[SEEDED_PIPELINE]["above_plain"]["median"] * usual["cpu"][PLAIN]["median"] / 1e4
    return [
        *(
            [
                f"lost, {name}, % by the clock, of CPU",
                lost(case),
                "at most 3" * name.endswith("2 workers"),
            ]
            for name, case in cases.items()
        ),
        [f"... {named(ONCE, 2)}, from the cost alone, %", f"{share:+.1f}", "at most 3"],
        *(
            [f"lost for the same bits, {name}, %", lost(cases[name], "to_usual"), ""]
            for name in (named(ANEW, 2), named(GIVEN, 2))
        ),
        *(
            [
                f"{name}, worker, us {HOT}, {COLD}",
                f"{hot[name]['median']:.1f}, {cold[name]['median']:.1f}",
                aim,
            ]
            for name, aim in ((SEEDING, "at most 12"), (SEEDED, ""), (SEEDED_PIPELINE, ""))
        ),
        *epoch_aims(report["seeded_loader"]),
        *resume_aims(report["resuming"], report["order"]),
        *held_aims(report["us_a_generator"]),
    ]


def main(arguments: list[str]) -> int:
    parser = suite_parser("data_throughput", __doc__)
    options = parse(parser, arguments)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # the check would use the network
    one_thread()
    report = collect(options.quick)
    show_report(report)
    print(f"\nwritten: {save('data_throughput_cpu', report, options.out)}")
    return 0
