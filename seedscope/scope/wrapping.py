"""What a decorator makes of each kind of callable.

Nothing here knows what a scope does: it gets a factory of context managers, which is
called with the arguments of each call.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from ..support.compiler import skipped
from .stepping import drive, drive_awaited


def is_decorable(thing: Any) -> bool:
    return callable(thing) or isinstance(
        thing, (property, classmethod, staticmethod, functools.cached_property)
    )


def wrap(target: Any, factory: Callable[..., Any]) -> Any:
    """Return `target` with a context from `factory` around each of its runs.

    A function gives a function of the same kind; other callables give a transparent
    proxy; descriptors give the same descriptor around what they hold.

    Raises:
        TypeError: a class, or nothing that can be called.
    """
    if isinstance(target, type):
        raise TypeError(
            f"a class cannot be decorated, got {target.__qualname__}: decorate the methods that "
            "draw random numbers, such as __init__ or forward"
        )
    if isinstance(target, types.FunctionType):
        # A function stays one, of its own kind: inspect, pickle and torch see no proxy.
        return skipped(functools.wraps(target)(_runner(target, factory)))
    if isinstance(target, (classmethod, staticmethod)):
        return type(target)(wrap(target.__func__, factory))
    if isinstance(target, functools.cached_property):
        return type(target)(wrap(target.func, factory))
    if isinstance(target, property):
        get, put, delete = (f and wrap(f, factory) for f in (target.fget, target.fset, target.fdel))
        return type(target)(get, put, delete, target.__doc__)
    if callable(target):
        return scoped_callable(target, factory)
    raise TypeError(f"expected something to call, got {target!r} ({type(target).__name__})")


def scoped_callable(target: Any, factory: Callable[..., Any]) -> Any:
    """Return a proxy of `target` that is called in a context from `factory`.

    It pickles as a call of this function, which is found by its name.
    """
    # Loaded where a proxy is made: few programs decorate anything but functions.
    from .proxies import ScopedCallable

    again = functools.partial(scoped_callable, factory=factory)
    return ScopedCallable(target, _runner(target, factory), again)


def _runner(function: Any, factory: Callable[..., Any]) -> Any:
    """Return a function of the same kind as `function` that runs it in a scope."""
    if _is_kind(inspect.isasyncgenfunction, function):
        return _async_generator_runner(function, factory)
    if _is_kind(inspect.iscoroutinefunction, function):
        return _coroutine_runner(function, factory)
    if _is_kind(inspect.isgeneratorfunction, function):
        runner = _generator_runner(function, factory)
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return types.coroutine(runner)
        return runner

    def run(*args: Any, **kwargs: Any) -> Any:
        with factory(args, kwargs):
            result = function(*args, **kwargs)
        # A lambda or another decorator may hide that the body only runs later.
        later = _LATER.get(type(result))
        return result if later is None else later(lambda *_, **__: result, factory)(*args, **kwargs)

    return run


def _generator_runner(function: Any, factory: Callable[..., Any]) -> Any:
    def run_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = factory(args, kwargs, resumes=True)
        try:
            return (yield from drive(function(*args, **kwargs), scope))
        finally:
            scope.finish()

    return run_generator


def _coroutine_runner(function: Any, factory: Callable[..., Any]) -> Any:
    async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
        scope = factory(args, kwargs, resumes=True)
        try:
            return await drive_awaited(function(*args, **kwargs), scope)
        finally:
            scope.finish()

    return run_coroutine


def _async_generator_runner(function: Any, factory: Callable[..., Any]) -> Any:
    async def run_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        steps, scope = function(*args, **kwargs), factory(args, kwargs, resumes=True)
        step = _unhooked(steps)
        try:
            while True:
                try:
                    yielded = await drive_awaited(step, scope)
                except StopAsyncIteration:
                    return
                try:
                    step = steps.asend((yield yielded))
                except GeneratorExit:
                    await drive_awaited(steps.aclose(), scope)
                    raise
                except BaseException as error:
                    step = steps.athrow(error)
        finally:
            scope.finish()

    return run_async_generator


def _unhooked(steps: Any) -> Any:
    """The first step of an async generator that the event loop does not get to know.

    At its shutdown the loop closes those that it knows, outside of the scope; the
    wrapper, which it knows, closes this one inside.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return steps.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


_LATER = {
    types.GeneratorType: _generator_runner,
    types.CoroutineType: _coroutine_runner,
    types.AsyncGeneratorType: _async_generator_runner,
}


def _is_kind(test: Callable[[Any], bool], function: Any) -> bool:
    return test(function) or test(vars(type(function)).get("__call__"))
