"""A function in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from threading import Thread
from typing import Any


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
