"""The decorator for each kind of callable.

This module does not depend on scopes: it gets a factory of context managers, and calls the
factory with the arguments of each call.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from ..support.compiler import skipped
from ..support.garbage import is_collecting
from .stepping import Body, drive, drive_awaited

# Descriptors that cannot be called and that bind to a callable.
_BINDERS = (functools.partialmethod, functools.singledispatchmethod)

_DESCRIPTORS = (property, classmethod, staticmethod, functools.cached_property, *_BINDERS)

# For these functions pytest counts the arguments of `__code__`, and passes as many. A proxy has
# the code of its function.
_COUNTED_BY_PYTEST = {
    f"{when}_{what}"
    for when in ("setup", "teardown")
    for what in ("module", "class", "method", "function")
} | {"setUpModule", "tearDownModule"}


def is_decorable(thing: Any) -> bool:
    return callable(thing) or isinstance(thing, _DESCRIPTORS)


def wrap(target: Any, factory: Callable[..., Any]) -> Any:
    """Return `target` with a context from `factory` around each of its runs.

    For a function, return a function of the same kind; for another callable, a transparent
    proxy; for a descriptor, the same kind of descriptor around its wrapped functions.

    Raises:
        TypeError: `target` is a class or a pytest fixture, or cannot be called.
    """
    if isinstance(target, type):
        raise TypeError(
            f"a class cannot be decorated, got {target.__qualname__}: decorate the methods that "
            "draw random numbers, such as __init__ or forward"
        )
    if _is_fixture(target):
        raise TypeError("pytest calls a fixture without its decorators: put @seeded below @fixture")
    kind = type(target)  # and not `isinstance`: a proxy pretends to be another kind
    if kind is types.FunctionType and target.__name__ not in _COUNTED_BY_PYTEST:
        # A function, and no proxy, for the sake of inspect, pickle and torch.
        return skipped(functools.wraps(target)(_runner(target, factory)))
    if issubclass(kind, (classmethod, staticmethod)):
        return kind(wrap(target.__func__, factory))
    if issubclass(kind, functools.cached_property):
        return kind(wrap(target.func, factory))
    if issubclass(kind, property):
        get, put, delete = (f and wrap(f, factory) for f in (target.fget, target.fset, target.fdel))
        return kind(get, put, delete, target.__doc__)
    if callable(target) or issubclass(kind, _BINDERS):
        return _scoped_callable(target, factory)
    raise TypeError(f"expected a callable, got {target!r} ({type(target).__name__})")


def _is_fixture(target: Any) -> bool:
    if type(target) is types.FunctionType:  # of pytest before 8.4
        return "_pytestfixturefunction" in vars(target)
    return type(target).__name__ == "FixtureFunctionDefinition"


def _scoped_callable(target: Any, factory: Callable[..., Any]) -> Any:
    """Return a proxy of `target` that runs `target` in a context from `factory`."""
    # Imported late: few programs decorate anything but functions.
    from .proxies import ScopedCallable

    return ScopedCallable(
        target, _runner(target, factory), functools.partial(wrap, factory=factory)
    )


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
        # A lambda or another decorator can return a generator or coroutine, whose body runs later.
        later = _LATER.get(type(result))
        if later is None:
            return result
        held = [result]  # the one who takes it out has the last reference
        return later(lambda *_, **__: held.pop(), factory)(*args, **kwargs)

    return run


class _Run:
    """The run of a body in the steps of a scope, which is told how it has ended."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._scope.finish(error)


def _generator_runner(function: Any, factory: Callable[..., Any]) -> Any:
    def run_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = factory(args, kwargs, resumes=True)
        with _Run(scope):
            body = Body(function(*args, **kwargs))
            try:
                return (yield from drive(body, scope))
            except GeneratorExit:
                if body.returned is None:
                    raise
                return body.returned  # as the `close` of Python 3.13 does

    return run_generator


def _coroutine_runner(function: Any, factory: Callable[..., Any]) -> Any:
    async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
        scope = factory(args, kwargs, resumes=True)
        with _Run(scope):
            return await drive_awaited(Body(function(*args, **kwargs)), scope)

    return run_coroutine


def _async_generator_runner(function: Any, factory: Callable[..., Any]) -> Any:
    async def run_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        held, scope = [function(*args, **kwargs)], factory(args, kwargs, resumes=True)
        held.append(_unhooked(held[0]))
        with _Run(scope):
            try:
                while True:
                    try:
                        yielded = await drive_awaited(Body(held[1], of=held[0]), scope)
                    except StopAsyncIteration:
                        return
                    try:
                        held[1] = held[0].asend((yield yielded))
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        held[1] = held[0].athrow(error)
            finally:
                try:
                    await _end(held, scope)
                finally:  # again: a second interrupt may come there
                    await _end(held, scope)

    return run_async_generator


async def _end(held: list[Any], scope: Any) -> None:
    """Close the async generator and the step in `held`: in the scope, if it is suspended."""
    try:
        if held and _is_suspended(held[0]) and not is_collecting():
            await drive_awaited(Body(_closed(held)), scope)
    finally:
        # Since Python 3.13, to close a step that has not begun runs a suspended body's `finally`.
        if held and not _is_suspended(held[0]):
            for step in held[1:]:
                step.close()


def _is_suspended(steps: Any) -> bool:
    """Return whether an async generator has begun and not ended."""
    frame = steps.ag_frame
    # Python 3.11 has no `ag_suspended`. There, a body that has not begun is at instruction 0.
    return frame is not None and bool(getattr(steps, "ag_suspended", frame.f_lasti > 0))


async def _closed(held: list[Any]) -> None:
    """Close the async generator in `held`, and its last step.

    `held` has the last references to them. A generator that yields again stays suspended. It is
    closed for good when the references end, which is here, and so in the scope.
    """
    try:
        await held[0].aclose()
    finally:
        held.pop().close()  # or a step that has not begun warns that it was not awaited
        held.clear()


def _unhooked(steps: Any) -> Any:
    """Return the first step of an async generator, hidden from the event loop.

    At shutdown the loop closes the generators that it knows, outside of the scope. The loop
    knows the wrapper, which closes the hidden generator inside the scope.
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
