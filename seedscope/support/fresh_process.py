"""Calls of a function in a new process."""

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
    """Prepare a new process: start method as in the parent, stdout redirected to stderr.

    A thread watches the parent and calls `on_orphaned` when the parent ends. Otherwise a
    killed parent would leave this process running on the GPU.
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
