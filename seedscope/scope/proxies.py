"""The transparent proxy of a callable that is not a plain function."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wrapt

from ..support.compiler import skipped

if TYPE_CHECKING:
    _Proxy = wrapt.CallableObjectProxy[Any]
else:
    _Proxy = wrapt.CallableObjectProxy  # wrapt 1.17 has no parameter at run time


class ScopedCallable(_Proxy):
    """A proxy of a callable, called in a scope, or of a descriptor that binds to a callable.

    Everything but the call goes to the wrapped object, in most cases also `isinstance`.

    Args:
        wrapped: the callable or descriptor.
        run: the function that is called instead.
        again: decorates another object in the same way; a pickle calls it.
    """

    def __init__(
        self, wrapped: Any, run: Callable[..., Any], again: Callable[[Any], ScopedCallable]
    ) -> None:
        super().__init__(wrapped)
        self._self_run = skipped(run)
        self._self_again = again

    @skipped
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._self_run(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        # A callable that binds as a method, such as a cached function, must still bind.
        bind = getattr(type(self.__wrapped__), "__get__", None)
        if bind is None:
            return self
        bound = bind(self.__wrapped__, instance, owner)
        return self._self_again(bound) if callable(bound) else bound

    def __set_name__(self, owner: type, name: str) -> None:
        # Python looks for this method on the type of the attribute, which is the proxy's.
        set_name = getattr(type(self.__wrapped__), "__set_name__", None)
        if set_name is not None:
            set_name(self.__wrapped__, owner, name)

    @property
    def __func__(self) -> Any:
        # pytest calls the function of a bound `setup_class`, and torch's compiler that of a method.
        return self._self_again(self.__wrapped__.__func__)

    # If a proxy looks like one of these kinds, torch.compile calls the wrapped object without
    # the scope. So a proxy of these kinds shows its own class.
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        kind = type(self.__wrapped__)
        if issubclass(kind, (functools.partial, types.BuiltinFunctionType, types.FunctionType)):
            return type(self)
        return kind

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    # wrapt's proxies do not support copy or pickle.
    def __copy__(self) -> ScopedCallable:
        return self._self_again(copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> ScopedCallable:
        return self._self_again(copy.deepcopy(self.__wrapped__, memo))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self._self_again, (self.__wrapped__,)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__reduce_ex__(2)
