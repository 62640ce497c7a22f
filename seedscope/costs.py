"""`cost`: what each determinism setting costs a training step, and which of them repeat.

cuDNN keeps the plans that it has chosen for the life of a process, whether it chose them by
autotuning or not, so each value of `cudnn.benchmark` has processes of its own. Within one,
the settings take turns, so that a slow spell of the machine meets all of them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import multiprocessing
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from threading import Thread
from typing import Any

import numpy as np
import torch

from .scope.options import Deterministic
from .scope.seeded import seeded
from .support.conditions import devices, versions
from .support.digests import digest
from .support.user_function import import_name

SEED = 1029


@dataclass(frozen=True)
class Arm:
    """A way to run a step, written as a user of `seeded` writes it."""

    name: str
    deterministic: Deterministic = False
    fill: bool | None = None
    benchmark: bool = False
    backend: str | None = None  # of scaled_dot_product_attention, pinned

    @contextmanager
    def open(self, seed: int = SEED) -> Iterator[None]:
        scope = seeded(seed, deterministic=self.deterministic, fill_uninitialized_memory=self.fill)
        with scope, contextlib.ExitStack() as stack:
            # The scope puts it back.
            torch.backends.cudnn.benchmark = self.benchmark
            if self.backend is not None:
                from torch.nn.attention import SDPBackend, sdpa_kernel

                stack.enter_context(sdpa_kernel(getattr(SDPBackend, self.backend)))
            yield


DEFAULT = Arm("torch's defaults")
TUNED = Arm("cudnn.benchmark = True", benchmark=True)
STRICT = Arm("deterministic=True", True)
UNFILLED = Arm("deterministic=True, no fill", True, fill=False)
ARMS = (
    DEFAULT,
    TUNED,
    Arm('deterministic="cudnn"', "cudnn"),
    Arm('deterministic="cudnn", benchmark', "cudnn", benchmark=True),
    Arm('deterministic="warn"', "warn"),
    STRICT,
    UNFILLED,
)


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds of blocks of about `block_s` seconds, and repeats.

    `repeats` are those of each process, of `steps` each: what differs in the first weights
    or gradients shows more the longer it goes on. `until`, on `time.monotonic()`, is when
    timing should end: blocks are shortened for it, down to a step, and rounds, down to 4.
    """

    rounds: int = 12
    block_s: float = 0.25
    repeats: int = 3
    steps: int = 10
    until: float = math.inf

    def block_for(self, arms: int) -> float:
        """Return the seconds of a block that `arms` of them can have."""
        return min(self.block_s, (self.until - time.monotonic()) / (self.rounds * arms))

    def is_over(self, rounds: int) -> bool:
        """Whether there is no time for more than `rounds`."""
        return rounds >= 6 and time.monotonic() > self.until


_TUNED_ARMS = {arm.name for arm in ARMS if arm.benchmark}
_UNCHECKED_ARMS = {arm.name for arm in ARMS if arm.deterministic is not True}
_HINT = (
    ". Are model, optimizer and data made inside the function? Is there a time, or entropy, in "
    "what the step returns?"
)
QUICK = Effort(rounds=5, block_s=0.05)


@dataclass
class Measured:
    """What was found of one setting.

    Attributes:
        ms: milliseconds of a step, one figure for each round; none if it raised.
        ratios: of those to torch's defaults, each paired with a round beside it; a list
            for each process.
        digests: of the results of repeats from one seed, one for each repeat.
        error: the first line of what it raised.
        warned: what it warned of: operations that do not repeat.
        first_ms: milliseconds of the first step, in each process.
        peak_mb: the most GPU memory that was allocated after the first step, which may also
            tune, in 10**6 bytes.
        launch_ms: milliseconds in which the CPU asks an idle GPU for a step, three in each
            process.
    """

    arm: str
    ms: list[float] = field(default_factory=list)
    ratios: list[list[float]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    error: str | None = None
    warned: list[str] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    peak_mb: float | None = None
    launch_ms: list[float] = field(default_factory=list)

    def fail(self, error: Exception) -> None:
        """Keep why it cannot run; what it did until then is no result."""
        self.error = first_line(error) or type(error).__name__
        for kept in (self.ms, self.launch_ms, self.digests):
            kept.clear()

    @property
    def distinct(self) -> int:
        return len(set(self.digests))

    @property
    def repeats(self) -> bool:
        """Whether all repeats, in all processes, gave the same bits."""
        return self.error is None and self.distinct == 1

    @property
    def is_launch_bound(self) -> bool:
        """Whether the CPU, which asks for the work, sets the time, and not the GPU."""
        if not self.launch_ms:
            return False
        return statistics.median(self.launch_ms) > 0.9 * statistics.median(self.ms)

    @property
    def ratio(self) -> float | None:
        """The median, over processes, of the median of each: all weigh the same."""
        medians = [statistics.median(process) for process in self.ratios]
        return statistics.median(medians) if medians else None

    @property
    def is_of_one_tuning(self) -> bool:
        """Whether it is autotuned and seen in one process: each chooses its plans anew."""
        return self.arm in _TUNED_ARMS and len(self.ratios) < 2

    def interval(self) -> tuple[float, float] | None:
        """A 95 % bootstrap interval of the ratio, over processes and their rounds.

        None where too little is known: of an autotuned setting, which is compared with another
        process, that is less than two processes. Two processes tell little of how processes
        differ: where they do, as much as rounds, it holds the truth in 3 of 4 cases only.
        """
        shortest, count = min(map(len, self.ratios), default=0), len(self.ratios)
        if shortest * count < 3 or self.is_of_one_tuning:
            return None
        generator = np.random.Generator(np.random.PCG64(SEED))
        drawn = []
        for _ in range(count):
            medians = []
            for process in self.ratios:
                rounds = generator.integers(len(process), size=(2000, len(process)))
                medians.append(np.median(np.array(process)[rounds], axis=1))
            # Processes too: what differs between them is not seen within one.
            which = generator.integers(count, size=2000)
            drawn.append(np.array(medians)[which, np.arange(2000)])
        low, high = np.quantile(np.median(drawn, axis=0), [0.025, 0.975])
        return float(low), float(high)


class Cost:
    """What `cost` found: iterating gives what was `Measured` of each setting."""

    def __init__(self, name: str, device: str, measured: Iterable[Measured]) -> None:
        self.name = name
        self.device = device
        self._measured = list(measured)

    def __iter__(self) -> Iterator[Measured]:
        return iter(self._measured)

    @property
    def cheapest(self) -> Measured | None:
        """The quickest setting of those whose repeats all gave the same bits.

        Where torch warned of operations that need not repeat, those settings count first under
        which it would raise: the operations run in all others, and may have repeated by luck.
        An autotuned setting counts only if two processes have tuned it. Of those that
        cannot be told from the quickest (within 1 %, or the median of one within the interval
        of the other, unless in each process the rounds side by side say which is slower) the
        strictest: it repeats by more than luck.
        """
        strictness = {arm.name: rank for rank, arm in enumerate(ARMS)} | {STRICT.name: len(ARMS)}
        found = [m for m in self if m.repeats and m.ratio and m.arm in strictness]
        found = [measured for measured in found if not measured.is_of_one_tuning]
        if self._told:
            found = [m for m in found if m.arm not in _UNCHECKED_ARMS] or found
        quickest = min(found, key=lambda m: m.ratio or 0, default=None)
        if quickest is None:
            return None
        equals = [measured for measured in found if _are_alike(measured, quickest)]
        return max(equals, key=lambda measured: strictness[measured.arm])

    def recommendation(self) -> str:
        """Return one sentence: what to use."""
        best = self.cheapest
        if best is None:
            raised = next((m for m in self if m.arm == STRICT.name and m.error), None)
            why = f": {raised.error}" if raised else _HINT
            return f"no setting made it repeat{why}"
        count, processes = len(best.digests), len(best.first_ms)
        text = f"cheapest reproducible setting: {best.arm}, {best.ratio:.2f}x"
        if best.arm == DEFAULT.name:
            text += f": it repeated as it is, in all {count} runs here"
        else:
            text += f" ({count} of {count} runs in {processes} processes gave the same bits)"
        if self._told and best.arm in _UNCHECKED_ARMS:
            text += f", though torch warns: {self._told[0]}"
        return text

    @property
    def _told(self) -> list[str]:
        """What torch warned of, each once."""
        return [*dict.fromkeys(text for measured in self for text in measured.warned)]

    def rows(self) -> list[list[str]]:
        """Return the table's texts, the headers first."""
        has_peak = any(measured.peak_mb for measured in self)
        peak = ["peak MB"] * has_peak
        headers = ["setting", "ms a step", "quartiles", "to default", "95 % interval"]
        table = [[*headers, *peak, "repeats"]]
        for measured in self:
            peak = [f"{measured.peak_mb:.0f}" if measured.peak_mb else ""] * has_peak
            table.append([measured.arm, *self._figures(measured), *peak, self._verdict(measured)])
        return table

    @staticmethod
    def _figures(measured: Measured) -> list[str]:
        if not measured.ms:
            return ["", "", "", ""]
        q1, median, q3 = statistics.quantiles(measured.ms, n=4, method="inclusive")
        interval = measured.interval()
        return [
            f"{median:.4g}",
            f"{q1:.4g} to {q3:.4g}",
            "" if measured.ratio is None else f"{measured.ratio:.3f}x",
            "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
        ]

    @staticmethod
    def _verdict(measured: Measured) -> str:
        if measured.error is not None:
            return f"cannot run: {measured.error:.70}"
        count = len(measured.digests)
        if measured.repeats:
            return f"yes, {count} of {count}"
        return f"NO, {measured.distinct} results in {count}"

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        notes = [f"warned of: {text}" for text in self._told]
        if bound := [measured.arm for measured in self if measured.is_launch_bound]:
            notes.append(
                f"the CPU, which asks the GPU for work, sets the time of: {'; '.join(bound)}"
            )
        title = f"{self.name} on {self.device}"
        return "\n".join([title, *(f"  {x}" for x in lines), *notes, self.recommendation()])

    def as_dict(self) -> dict[str, Any]:
        """Return everything, in JSON's types."""
        best = self.cheapest
        return {
            "name": self.name,
            "device": self.device,
            "versions": versions(),
            "cheapest": best and best.arm,
            "recommendation": self.recommendation(),
            "arms": [vars(m) | {"distinct": m.distinct, "ratio": m.ratio} for m in self],
        }


def _are_alike(slow: Measured, quick: Measured) -> bool:
    """Whether the one cannot be told from the other, which is quicker by the medians."""
    at, least = slow.ratio or 0, quick.ratio or 0
    if at <= 1.01 * least:
        return True
    if (slow.arm in _TUNED_ARMS) == (quick.arm in _TUNED_ARMS):
        # They took turns: what disturbs a round is beside it in the other's.
        pairs = zip(slow.ratios, quick.ratios, strict=False)
        slower = [statistics.median(np.divide(*pair)) for pair in pairs]
        if len(slower) > 1 and min(slower) > 1.01:
            return False
    low, _ = slow.interval() or (at, at)
    _, high = quick.interval() or (least, least)
    return low <= 1.01 * least or at <= high


def cost(
    make_step: Callable[[], Callable[[], Any]],
    *,
    quick: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Cost:
    """Return what each determinism setting costs a step of yours, and whether it repeats.

    `make_step` builds model, optimizer and data, and returns a function that takes one
    step and returns what to compare bit for bit: the model, tensors, or a container of them.
    It is called in fresh processes, two for each value of `cudnn.benchmark` that the
    device knows, so it must be importable: a function at the top of a module, whose script,
    if it is one, calls `cost` under `if __name__ == "__main__":`.

    Each setting runs 10 steps from one seed several times in each process, and the results
    are compared, of a model and of parameters with their gradients; then it is timed, on the
    current GPU and stream, for thousands of steps. On a GPU this takes minutes, with `quick`
    less.

    Raises:
        TypeError: `make_step` cannot be imported by another process, or what it makes
            returns nothing that can be compared.
    """
    name = import_name(make_step)
    if name is None:
        raise TypeError(
            f"{make_step!r} cannot be imported by the processes that run it: "
            "move it to the top of a module"
        )
    # Asked elsewhere: to ask here would keep forks of this process from using a GPU.
    is_cuda = in_fresh_process(torch.cuda.is_available)
    sessions = []
    for number, benchmark in enumerate(order := benchmark_order(is_cuda), 1):
        switch = f", cudnn.benchmark {'on' if benchmark else 'off'}" * is_cuda
        say(f"process {number} of {len(order)}{switch}")
        arms, effort = arms_of(ARMS, benchmark, is_cuda), QUICK if quick else Effort()
        sessions.append(in_fresh_process(run_session, make_step, arms, effort))
    return Cost(name, sessions[0]["device"], combine(sessions))


def benchmark_order(is_cuda: bool) -> list[bool]:
    """The value of `cudnn.benchmark` in each process: A B B A, against a slow drift."""
    return [False, True, True, False] if is_cuda else [False, False]


def arms_of(arms: Iterable[Arm], benchmark: bool, is_cuda: bool) -> list[Arm]:
    """Those of the process; without a GPU cuDNN's switches do nothing."""
    return [a for a in arms if a.benchmark == benchmark and (is_cuda or a.deterministic != "cudnn")]


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    method = multiprocessing.get_start_method(allow_none=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, begin_process, (method,)) as pool:
        return pool.submit(function, *arguments).result()


def _exit() -> None:
    os._exit(1)


def begin_process(start_method: str | None, on_orphaned: Callable[[], None] = _exit) -> None:
    """Make this process as the caller's: its own workers start in the same way.

    What is printed goes to stderr. A caller that is killed would leave this at work on the
    GPU: it is watched, and `on_orphaned` is called when it is gone.
    """
    default = multiprocessing.get_all_start_methods()[0]
    multiprocessing.set_start_method(start_method or default, force=True)
    os.dup2(2, 1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        on_orphaned()

    Thread(target=watch, daemon=True).start()


# -------------------------------------------------------------- in one process


def run_session(
    make_step: Callable[[], Callable[[], Any]],
    arms: list[Arm],
    effort: Effort,
    keep: Callable[[dict[str, Any]], None] = lambda session: None,
) -> dict[str, Any]:
    """Return what was measured of each arm here, and of a fixed product beside them.

    `keep` is called with what is known when the repeats are done and the timing begins.
    """
    is_cuda = torch.cuda.is_available()
    if is_cuda:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # memory statistics can be reset once it runs
    measured = {arm.name: _repeat(make_step, arm, effort, is_cuda) for arm in arms}
    running = [arm for arm in arms if measured[arm.name].error is None]
    on_gpu = any(found.peak_mb for found in measured.values())  # a step may leave it alone
    session = {
        "device": torch.cuda.get_device_name() if on_gpu else f"{devices()[0]} (CPU)",
        "benchmark": arms[0].benchmark,
        "arms": [vars(found) for found in measured.values()],
        "canary_ms": [],
        "gpu": {},
    }
    keep(session)
    if running:
        with running[0].open():
            step = make_step()
        gc.freeze()  # so that the collections between the blocks are short
        try:
            _time(step, running, measured, effort, session, is_cuda)
        finally:
            gc.unfreeze()
    return session


def _time(
    step: Callable[[], Any],
    running: list[Arm],
    measured: dict[str, Measured],
    effort: Effort,
    session: dict[str, Any],
    is_cuda: bool,
) -> None:
    """Time the arms in turns, each round in another order."""
    canary, counts, order = _canary(is_cuda), dict[str, int](), random.Random(SEED)
    block_s = effort.block_for(len(running))
    for number in range(effort.rounds):
        if effort.is_over(number):
            break
        readings: list[tuple[list[float], Callable[[], float]]] = []
        for arm in order.sample(running, len(running)):
            found = measured[arm.name]
            try:
                with arm.open(), _silenced(), _no_collection():
                    if arm.name not in counts:
                        counts[arm.name] = _steps_for(step, block_s, is_cuda)
                        if is_cuda:
                            found.launch_ms += [_launch_ms(step) for _ in range(3)]
                    step()  # what the change of settings costs is no step's
                    reading = timed(step, counts[arm.name], is_cuda)
            except Exception as error:
                if arm == DEFAULT:
                    raise RuntimeError(
                        f"the step failed when it was called again: {error!r:.200}. It is called "
                        "thousands of times: give it data without end, as itertools.cycle does"
                    ) from error
                found.fail(error)
                running.remove(arm)
            else:
                readings.append((found.ms, reading))
        readings.append((session["canary_ms"], timed(canary, 10, is_cuda)))
        if is_cuda:
            _note_state(session["gpu"])  # while it works
            torch.cuda.synchronize()  # once for all of the round
        for kept, reading in readings:
            kept.append(reading())


def _repeat(make_step: Any, arm: Arm, effort: Effort, is_cuda: bool) -> Measured:
    """Run the steps several times from one seed, and digest what they give."""
    found = Measured(arm.name)
    warns_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # or the first arm alone would be warned of attention
    gc.collect()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        for number in range(effort.repeats):
            with arm.open(), warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                step = make_step()
                if not callable(step) or isinstance(step, torch.nn.Module):
                    raise TypeError(
                        f"{import_name(make_step)}() must return a function that takes one step, "
                        f"got {step!r:.100}"
                    )
                if is_cuda:
                    torch.cuda.synchronize()  # what making it has queued is not the step's
                begin = time.perf_counter()
                result = step()
                if is_cuda:
                    torch.cuda.synchronize()
                if number == 0:
                    found.first_ms.append((time.perf_counter() - begin) * 1e3)
                    if is_cuda and effort.steps > 1:
                        # What autotuning has tried in the first step is not the step's.
                        torch.cuda.reset_peak_memory_stats()
                for _ in range(effort.steps - 1):
                    result = step()
            if is_cuda and number == 0:
                found.peak_mb = torch.cuda.max_memory_allocated() / 1e6
            found.digests.append(digest(result))
            found.warned += [first_line(w.message) for w in told if "determinis" in str(w.message)]
            del step, result
    except Exception as error:
        # Of the plain settings it is the step's own failure; so is a wrong type.
        if arm == DEFAULT or isinstance(error, TypeError):
            raise
        found.fail(error)
    finally:
        torch.set_warn_always(warns_always)
    found.warned = [*dict.fromkeys(found.warned)]
    return found


def first_line(what: object) -> str:
    line = str(what).strip().partition("\n")[0]
    return line.partition(", but you set ")[0].partition(". You can turn off")[0]


def _steps_for(step: Callable[[], Any], block_s: float, is_cuda: bool) -> int:
    """How many steps fill a block, once the settings are warm."""
    for _ in range(2):
        step()
    if is_cuda:
        torch.cuda.synchronize()
    reading = timed(step, 2, is_cuda)
    if is_cuda:
        torch.cuda.synchronize()
    return max(1, min(1000, round(block_s * 1e3 / max(reading(), 1e-3))))


def _launch_ms(step: Callable[[], Any]) -> float:
    """Milliseconds of one step for the CPU alone, which goes ahead of the GPU.

    One at a time, of an idle GPU: where the queue is full, the CPU would wait.
    """
    torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    passed = time.perf_counter() - begin
    torch.cuda.synchronize()
    return passed * 1e3


def timed(call: Callable[[], Any], count: int, is_cuda: bool) -> Callable[[], float]:
    """Run `call` and return what gives its milliseconds, once the device is done."""
    if is_cuda:
        events: Any = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        events[0].record()
        for _ in range(count):
            call()
        events[1].record()
        return lambda: float(events[0].elapsed_time(events[1])) / count
    begin = time.perf_counter()
    for _ in range(count):
        call()
    milliseconds = (time.perf_counter() - begin) / count * 1e3
    return lambda: milliseconds


def _canary(is_cuda: bool) -> Callable[[], Any]:
    """A product that always costs the same, unless the clocks have changed."""
    size, device = (4096, "cuda") if is_cuda else (256, "cpu")
    # Of bfloat16 on a GPU: whether float32 goes by TF32 is a setting of the step's.
    kind = torch.bfloat16 if is_cuda else torch.float32
    matrix = torch.full((size, size), 0.5, device=device, dtype=kind)
    return lambda: torch.mm(matrix, matrix)


@contextmanager
def _silenced() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage before and not within: in whose block a collection falls is chance."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _note_state(state: dict[str, float]) -> None:
    """Note clock, temperature, power and use, where NVML (nvidia-ml-py) can be asked."""
    for name in ("clock_rate", "temperature", "power_draw", "utilization"):
        with contextlib.suppress(Exception):  # whatever NVML lacks is left out
            state[name] = float(getattr(torch.cuda, name)())
    with contextlib.suppress(Exception):
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        properties = torch.cuda.get_device_properties()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        # A bit for each reason: https://docs.nvidia.com/deploy/nvml-api
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        state["throttle_reasons"] = int(state.get("throttle_reasons", 0)) | reasons


# --------------------------------------------------------------------- together


def combine(sessions: list[dict[str, Any]]) -> list[Measured]:
    """Put the sessions' arms together, each with its ratios to torch's defaults.

    A session without the defaults, the one with `cudnn.benchmark` on, is set beside the
    median of the nearest session that has them. The ratios are not corrected by the fixed
    product: it follows the GPU's clocks more closely than most networks do.
    """
    together: dict[str, Measured] = {}
    for number, session in enumerate(sessions):
        base = _baseline(sessions, number)
        for record in session["arms"]:
            found = together.setdefault(record["arm"], Measured(record["arm"]))
            for name in ("ms", "digests", "first_ms", "launch_ms"):
                getattr(found, name).extend(record[name])
            found.error = found.error or record["error"]
            found.warned = [*dict.fromkeys([*found.warned, *record["warned"]])]
            found.peak_mb = max(filter(None, (found.peak_mb, record["peak_mb"])), default=None)
            if ratios := [ours / theirs for theirs, ours in zip(base, record["ms"], strict=False)]:
                found.ratios.append(ratios)
    ranks = {arm.name: rank for rank, arm in enumerate(ARMS)}
    return sorted(together.values(), key=lambda found: ranks.get(found.arm, len(ranks)))


def _baseline(sessions: list[dict[str, Any]], number: int) -> Iterable[float]:
    """The defaults to compare a session's rounds with: its own, with which they took turns.

    Where it has none, the median of those next to it: rounds of two processes are no pairs.
    """
    for other in sorted(range(len(sessions)), key=lambda other: abs(other - number)):
        for record in sessions[other]["arms"]:
            if record["arm"] == DEFAULT.name and record["ms"]:
                rounds: list[float] = record["ms"]
                return rounds if other == number else repeat(statistics.median(rounds))
    return ()
