"""`cost`: what each determinism setting costs a training step, and which of them repeat.

cuDNN keeps the plans that it has chosen for the life of a process, whether it chose them by
autotuning or not, so each value of `cudnn.benchmark` has processes of its own. Within one,
the settings take turns, so that a slow spell of the machine meets all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ..support.fresh_process import in_fresh_process
from ..support.user_function import import_name
from .configurations import CONFIGURATIONS, QUICK, Effort, benchmark_order, configurations_of
from .result import Cost, combine
from .session import run_session

_LOGGER = logging.getLogger("seedscope")


def cost(
    make_step: Callable[[], Callable[[], Any]],
    *,
    quick: bool = False,
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
        switch = f", cudnn.benchmark {'on' if benchmark else 'off'}" if is_cuda else ""
        _LOGGER.info("process %d of %d%s", number, len(order), switch)
        configurations, effort = (
            configurations_of(CONFIGURATIONS, benchmark, is_cuda),
            QUICK if quick else Effort(),
        )
        sessions.append(in_fresh_process(run_session, make_step, configurations, effort))
    return Cost(name, sessions[0].device, combine(sessions))
