"""`cost`: the time of a training step under each determinism setting, and whether it repeats.

cuDNN keeps its plans for the life of a process, autotuned or not. So each value of
`cudnn.benchmark` has separate processes. Within a process the settings take turns, so that a
slow spell of the machine affects all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..support.fresh_process import in_fresh_process
from ..support.remarks import remark
from ..support.user_function import import_name
from .configurations import (
    CONFIGURATIONS,
    QUICK,
    UNREPLACED,
    Effort,
    benchmark_order,
    configurations_of,
)
from .result import Cost, combine
from .session import run_session


def cost(
    make_step: Callable[[], Callable[[], Any]],
    *,
    quick: bool = False,
) -> Cost:
    """Return the time of a step under each determinism setting, and whether its results repeat.

    Each setting runs 10 steps from one seed, several times in each process. The results are
    compared bit for bit; models and parameters together with their gradients. Then each setting
    is timed for up to thousands of steps, on the current GPU and stream.

    Args:
        make_step: a function that builds model, optimizer and data, and returns a function. That
            function takes one step, and returns the results to compare: the model, tensors, or a
            container of them. Fresh processes call `make_step`, two for each value of
            `cudnn.benchmark` that the device supports. So `make_step` must be a function at the
            top of a module. A script must call `cost` under `if __name__ == "__main__":`.
        quick: whether to measure for a shorter time, with wider intervals. Without `quick`, a
            GPU takes minutes.

    Raises:
        TypeError: another process cannot import `make_step`, or the step's results cannot be
            compared.
    """
    name = import_name(make_step)
    if name is None:
        raise TypeError(
            f"{make_step!r} cannot be imported by the processes that run it: "
            "move the function to the top of a module"
        )
    # Checked in another process: a check here would keep forks of this process from the GPU.
    is_cuda = in_fresh_process(torch.cuda.is_available)
    sessions = []
    for number, benchmark in enumerate(order := benchmark_order(is_cuda), 1):
        switch = f", cudnn.benchmark {'on' if benchmark else 'off'}" if is_cuda else ""
        remark(f"process {number} of {len(order)}{switch}")
        configurations, effort = (
            configurations_of((*CONFIGURATIONS, UNREPLACED), benchmark, is_cuda),
            QUICK if quick else Effort(),
        )
        sessions.append(in_fresh_process(run_session, make_step, configurations, effort))
    # Most steps with replaced operations cannot run without: torch raises there.
    found = [m for m in combine(sessions) if m.configuration != UNREPLACED.name or not m.error]
    return Cost(name, sessions[0].device, found)
