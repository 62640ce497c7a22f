"""The run of one seed, in any process."""

from __future__ import annotations

import numbers
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from ..scope.options import Options
from ..scope.scope import Scope


@dataclass
class Job:
    """The run of one seed, picklable, so that any process can call the job."""

    fn: Callable[..., Any]
    seed_parameter: Literal["by name", "first", "no"]
    options: Options
    threads: int
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, seed: int, **more: Any) -> dict[str, Any]:
        """Run `seed` and return the record of the run, in the run log's JSON types."""
        recorder = self.options.recorder(seed, counted=False, **self.facts, **more)
        arguments: Any = [seed] if self.seed_parameter == "first" else []
        named: Any = {"seed": seed} if self.seed_parameter == "by name" else {}
        error = None
        try:
            with Scope(seed, self.options, recorder=recorder) as scope, _threads(self.threads):
                scope.note(value=check_number(self.fn(*arguments, **named)))
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # SystemExit, asyncio's CancelledError
            error = "".join(traceback.format_exception(raised))
            recorder.begin()  # needed if the scope could not open
        return {**recorder.end(), "error": error}


def check_number(value: Any) -> Any:
    """Return a function's value for the log.

    Raises:
        OverflowError, TypeError: it is no number, or a larger one than a float.
    """
    is_array = isinstance(value, (np.ndarray, torch.Tensor))
    is_numpy = isinstance(value, (np.ndarray, np.generic))  # a list may have any shape
    is_complex = (
        value.is_complex()
        if isinstance(value, torch.Tensor)
        else (is_numpy and np.iscomplexobj(value))
    )
    if is_complex or not (
        isinstance(value, (numbers.Real, np.bool_)) or (is_array and value.ndim == 0)
    ):
        raise TypeError(f"the function must return a number, got {value!r:.200}")
    number = float(value)  # raises for an integer that is too large
    is_kept = is_array or isinstance(value, np.generic) or type(value) in (bool, int, float)
    return value if is_kept else number


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Set the caller's number of CPU threads: executors limit it, and bits can depend on it."""
    before = torch.get_num_threads()
    if before == number:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
