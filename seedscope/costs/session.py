"""The measurements of one fresh process."""

from __future__ import annotations

import gc
import random
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..support.conditions import devices
from ..support.digests import digest
from ..support.user_function import import_name
from .configurations import DEFAULT, SEED, Configuration, Effort
from .measurement import Measurement, first_line
from .timing import canary, launch_ms, no_collection, note_state, silenced, steps_for, timed

Step = Callable[[], Any]


@dataclass
class Session:
    """The measurements of one process.

    Attributes:
        device: the GPU's name, or the CPU's if the step did not use the GPU.
        benchmark: the value of `cudnn.benchmark`.
        measurements: one for each configuration, in the order of the configurations.
        canary_ms: milliseconds of a fixed product in each round, which show changes of the clocks.
        gpu: clock, temperature, power, use and throttle reasons of the GPU, as far as NVML has
            them.
    """

    device: str
    benchmark: bool
    measurements: list[Measurement]
    canary_ms: list[float] = field(default_factory=list)
    gpu: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the whole session, in JSON's types."""
        return vars(self) | {"measurements": [vars(found) for found in self.measurements]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Session:
        """Return the session whose `as_dict` returned `content`. Unknown keys are ignored.

        Raises:
            KeyError: a key is missing.
        """
        known = {name: content[name] for name in cls.__dataclass_fields__}
        names = Measurement.__dataclass_fields__
        older: Mapping[str, Any] = {
            "replaced": {}
        }  # sessions that were kept before there were replacements
        parts = [
            Measurement(**{name: {**older, **one}[name] for name in names})
            for one in content["measurements"]
        ]
        return cls(**known | {"measurements": parts})


def run_session(
    make_step: Callable[[], Step],
    configurations: list[Configuration],
    effort: Effort,
    keep: Callable[[Session], None] = lambda session: None,
) -> Session:
    """Return the measurements of the configurations in this process, and of a fixed product.

    `keep` gets the session after the repeats, before the timing.
    """
    is_cuda = torch.cuda.is_available()
    if is_cuda:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # needed before memory statistics are reset
    found: list[Measurement] = []
    for one in configurations:
        if one.replacements or any(other.replaced for other in found):
            found.append(_repeat(make_step, one, effort, is_cuda))
    on_gpu = any(measurement.peak_mb for measurement in found)  # a step may not use the GPU
    device = torch.cuda.get_device_name() if on_gpu else f"{devices()[0]} (CPU)"
    session = Session(device, configurations[0].benchmark, found)
    keep(session)
    running = {
        one: measurement
        for one, measurement in zip(configurations, found, strict=False)  # the last may be left out
        if measurement.error is None
    }
    if running:
        with next(iter(running)).open():
            step = make_step()
        gc.freeze()  # keeps the collections between blocks short
        try:
            _time(step, running, session, effort, is_cuda)
        finally:
            gc.unfreeze()
    return session


def _time(
    step: Step,
    running: dict[Configuration, Measurement],
    session: Session,
    effort: Effort,
    is_cuda: bool,
) -> None:
    """Time the configurations in turns, in another order each round."""
    product, counts, order = canary(is_cuda), dict[Configuration, int](), random.Random(SEED)
    block_s = effort.block_for(len(running))
    for number in range(effort.rounds):
        if effort.is_over(number):
            break
        readings: list[tuple[list[float], Callable[[], float]]] = []
        for configuration in order.sample([*running], len(running)):
            found = running[configuration]
            try:
                with configuration.open(), silenced(), no_collection():
                    if configuration not in counts:
                        counts[configuration] = steps_for(step, block_s, is_cuda)
                        found.launch_ms += [launch_ms(step) for _ in range(3 if is_cuda else 0)]
                    step()  # not timed: pays for the change of settings
                    readings.append((found.ms, timed(step, counts[configuration], is_cuda)))
            except Exception as error:
                _note_failure(configuration, found, error)
                del running[configuration]
        readings.append((session.canary_ms, timed(product, 10, is_cuda)))
        if is_cuda:
            note_state(session.gpu)  # while the GPU works
            torch.cuda.synchronize()  # once for the whole round
        for kept, reading in readings:
            kept.append(reading())


def _note_failure(configuration: Configuration, found: Measurement, error: Exception) -> None:
    """Keep the reason why a configuration cannot be timed.

    Raises:
        RuntimeError: the configuration is torch's defaults, so that the step itself is at fault.
    """
    if configuration == DEFAULT:
        raise RuntimeError(
            f"the step failed when it was called again: {error!r:.200}. The step is called "
            "thousands of times: give the step endless data, such as itertools.cycle"
        ) from error
    found.fail(error)


def _repeat(
    make_step: Callable[[], Step], configuration: Configuration, effort: Effort, is_cuda: bool
) -> Measurement:
    """Run the steps several times from one seed, and return digests of the results."""
    found = Measurement(configuration.name)
    warns_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else torch warns of attention only under the first configuration
    gc.collect()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(effort.repeats):
            with configuration.open() as scope, warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                result = _run_steps(make_step, effort.steps, found, is_cuda)
            found.replaced = scope.replaced
            found.digests.append(digest(result))
            found.warned += [first_line(w.message) for w in told if "determinis" in str(w.message)]
            del result
    except Exception as error:
        # Under torch's defaults the step itself is at fault; a TypeError is too.
        if configuration == DEFAULT or isinstance(error, TypeError):
            raise
        found.fail(error)
    finally:
        torch.set_warn_always(warns_always)
    found.warned = [*dict.fromkeys(found.warned)]
    return found


def _run_steps(make_step: Callable[[], Step], count: int, found: Measurement, is_cuda: bool) -> Any:
    """Make a step, take `count` steps and return the last result.

    The first call in a process also notes the time of the first step and the peak of memory.
    """
    is_first = not found.first_ms
    step = make_step()
    if not callable(step) or isinstance(step, torch.nn.Module):
        raise TypeError(
            f"{import_name(make_step)}() must return a function that takes one step, "
            f"got {step!r:.100}"
        )
    if is_cuda:
        torch.cuda.synchronize()  # the work that making the step has queued is not the step's
    begin = time.perf_counter()
    result = step()
    if is_cuda:
        torch.cuda.synchronize()
    if is_first:
        found.first_ms.append((time.perf_counter() - begin) * 1e3)
        if is_cuda and count > 1:
            # The memory that autotuning used in the first step is not the step's.
            torch.cuda.reset_peak_memory_stats()
    for _ in range(count - 1):
        result = step()
    if is_first and is_cuda:
        found.peak_mb = torch.cuda.max_memory_allocated() / 1e6
    return result
