"""Blocks of every kind, to be interrupted, which end in every way."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from pathlib import Path

import torch

from seedscope import Stream, current_scope, evaluating, isolated, seeded

# For each `finally` of a body that ran: whether it ran inside of its scope.
FINALLY: list[str] = []


def _note_where():
    mode = torch.get_deterministic_debug_mode()
    FINALLY.append("inside" if mode == 2 and current_scope() else "outside")
    random.random(), torch.rand(1)


BIG = torch.rand(160, 160)
LOG = Path(tempfile.mkdtemp()) / "runs.jsonl"
MODEL = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout())
STREAM, AGAIN = Stream(7), seeded(7)


def operator():
    with seeded(3):
        BIG @ BIG


def c_call():
    with seeded(3):
        torch.mm(BIG, BIG)


def python_code():
    with seeded(3):
        for _ in range(60):
            random.random()
        x = 0
        for i in range(300):
            x += i


def nothing():
    with seeded(3):
        pass


def an_error():
    with contextlib.suppress(ZeroDivisionError), seeded(3):
        BIG @ BIG
        raise ZeroDivisionError


def nested_in_itself():
    with AGAIN, AGAIN:
        BIG @ BIG


def stream():
    with STREAM:
        BIG @ BIG


def an_isolated_block():
    with isolated():
        torch.manual_seed(5)
        BIG @ BIG


def an_evaluation():
    with evaluating(MODEL, seed=3):
        BIG @ BIG


@seeded(3)
def decorated():
    BIG @ BIG


@evaluating(MODEL, seed=3)
def decorated_evaluation():
    BIG @ BIG


@seeded(3)
def _steps():
    try:
        yield random.random()
        BIG @ BIG
        yield
        BIG @ BIG
    finally:
        _note_where()


def generator():
    for _ in _steps():
        pass


@seeded(3)
async def _coroutine():
    try:
        BIG @ BIG
        await asyncio.sleep(0)
        BIG @ BIG
    finally:
        _note_where()


def _run(awaited):
    steps = awaited.__await__()
    try:
        for _ in steps:
            pass
    finally:
        try:
            steps.close()
        except RuntimeError as error:
            # Before Python 3.13 no consumer that is closed at an await of an async generator can
            # close the generator. It ends where the last reference to it does.
            if "already running" not in str(error):
                raise


def coroutine():
    _run(_coroutine())


@seeded(3)
async def _async_steps():
    try:
        BIG @ BIG
        yield
        await asyncio.sleep(0)
        BIG @ BIG
    finally:
        _note_where()


async def _consume():
    async with contextlib.aclosing(_async_steps()) as steps:
        async for _ in steps:
            pass


def async_generator():
    _run(_consume())


def logged():
    with seeded(3, log=LOG) as scope:
        scope.note(loss=1.0)
        BIG @ BIG


def waiting():
    with seeded(3, threads="wait"):
        BIG @ BIG


def _drop_hooks():
    # The context managers of torch have the gap that seedscope's had: an interrupt can leave the
    # hooks of a checkpoint in force, and the next one fails.
    while torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        torch._C._autograd._pop_saved_tensors_default_hooks()


def recomputation():
    _drop_hooks()

    def f(x):
        with STREAM:
            return (x * torch.rand(8)).sin()

    x = torch.ones(8, requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(f, x, use_reentrant=False, context_fn=STREAM.recompute)
    y.sum().backward()


ACTIONS = {
    function.__name__: function
    for function in (
        *(operator, c_call, python_code, nothing, an_error, nested_in_itself, stream),
        *(an_isolated_block, an_evaluation, decorated, decorated_evaluation, generator),
        *(coroutine, async_generator, waiting, logged, recomputation),
    )
}


def left_by_hand():
    scope = seeded(3)
    scope.__enter__()
    try:
        BIG @ BIG
    finally:
        scope.__exit__(None, None, None)


def in_an_exit_stack():
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeded(3))
        BIG @ BIG


@contextlib.contextmanager
def _seeded():
    with seeded(3):
        yield


def in_a_context_manager():
    with _seeded():
        BIG @ BIG


# Known issues name what no code can close.
GAPS = {
    function.__name__: function
    for function in (left_by_hand, in_an_exit_stack, in_a_context_manager)
}
