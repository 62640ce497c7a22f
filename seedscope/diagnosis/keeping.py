"""What `restore=` names: its state is kept, and put back before each run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..sources.generators import KINDS
from .contents import is_lazy

_KINDS = (
    "a module, an optimizer, something else with state_dict() and load_state_dict(), a tensor, "
    "an array, a generator of random numbers, or an iterator that is an argument"
)


class Kept:
    """The states of several things, at the time when this was made.

    Args:
        things: what to keep.
        arguments: the arguments of the function; a kept iterator among them is given to each run
            as a copy.

    Raises:
        TypeError: the state of a thing cannot be kept; nothing was changed.
    """

    def __init__(self, things: Iterable[Any], arguments: Iterable[Any] = ()) -> None:
        self._things = [*things]
        self._iterators: dict[int, Any] = {}
        self._put_back: list[Callable[[], None]] = []
        places = [id(one) for one in arguments]
        for thing in self._things:
            if isinstance(thing, Iterator):
                if id(thing) not in places:
                    raise TypeError(
                        f"restore has the iterator {thing!r:.100}, which is not an argument of the "
                        "function: give it as one, and each run gets a copy"
                    )
                self._iterators[id(thing)] = thing, _copied_iterator(thing)
            else:
                self._put_back.append(_keep(thing))

    def restore(self) -> None:
        """Put every state back."""
        for put_back in self._put_back:
            put_back()

    def given(self, argument: Any) -> Any:
        """Return what a run gets for an argument: a copy of an iterator that is kept."""
        kept = self._iterators.get(id(argument))
        return argument if kept is None else _copied_iterator(kept[1])

    def storages(self) -> set[int]:
        """Return the storages of what is put back, by `id`."""
        tensors: list[Tensor] = []
        for thing in self._things:
            if isinstance(thing, nn.Module):
                tensors += _initialised([*thing.parameters(), *thing.buffers()])
            elif isinstance(thing, Tensor):
                tensors.append(thing)
        return {id(t.untyped_storage()) for t in tensors if t.layout is torch.strided}


def can_keep(thing: Any) -> bool:
    """Return whether `Kept` can keep a thing that is no argument."""
    if isinstance(thing, type):
        return False
    has_state = callable(getattr(thing, "state_dict", None))
    is_known = isinstance(thing, (nn.Module, Tensor, np.ndarray, *KINDS))
    return is_known or (has_state and callable(getattr(thing, "load_state_dict", None)))


def _keep(thing: Any) -> Callable[[], None]:
    """Return what puts the present state of a thing back."""
    if not can_keep(thing):
        raise TypeError(f"restore cannot keep {thing!r:.100}: it must be {_KINDS}")
    if isinstance(thing, nn.Module):
        return _keep_module(thing)
    if isinstance(thing, torch.optim.Optimizer):
        return _keep_optimizer(thing)
    if isinstance(thing, Tensor):
        return _keep_tensor(thing)
    if isinstance(thing, np.ndarray):
        array = thing.copy()
        return lambda: np.copyto(thing, array)
    for kind, make in KINDS.items():
        if isinstance(thing, kind):
            source = make("restored", thing)
            state = source.capture()
            return lambda: source.restore(state)
    saved = copy.deepcopy(thing.state_dict())
    return lambda: thing.load_state_dict(copy.deepcopy(saved))


def _keep_module(module: nn.Module) -> Callable[[], None]:
    # With what a state_dict does not have: gradients, modes, buffers that are not persistent.
    tensors = [_keep_tensor(one) for one in _initialised(module.parameters())]
    buffers = [_keep_tensor(one) for one in module.buffers()]
    modes = [(one, one.training) for one in module.modules()]
    saved = None if _has_lazy(module) else copy.deepcopy(module.state_dict())

    def put_back() -> None:
        if saved is not None:
            module.load_state_dict(saved)
        for restore in (*tensors, *buffers):
            restore()
        for one, training in modes:
            one.training = training

    return put_back


def _keep_tensor(tensor: Tensor) -> Callable[[], None]:
    value = tensor.detach().clone()
    grad = None if tensor.grad is None else tensor.grad.detach().clone()

    def put_back() -> None:
        with torch.no_grad():
            tensor.detach().copy_(value)
        tensor.grad = None if grad is None else grad.clone()

    return put_back


def _keep_optimizer(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    # Not by load_state_dict, which converts the state to the dtype of the parameter.
    state = {one: copy.deepcopy(held) for one, held in optimizer.state.items()}
    groups = [
        ([*group["params"]], copy.deepcopy({k: v for k, v in group.items() if k != "params"}))
        for group in optimizer.param_groups
    ]

    def put_back() -> None:
        optimizer.state.clear()
        optimizer.state.update({one: copy.deepcopy(held) for one, held in state.items()})
        del optimizer.param_groups[len(groups) :]
        for group, (parameters, values) in zip(optimizer.param_groups, groups, strict=True):
            group.clear()
            group.update(copy.deepcopy(values), params=[*parameters])

    return put_back


def _initialised(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [one for one in tensors if not is_lazy(one)]


def _has_lazy(module: nn.Module) -> bool:
    held = [*module.parameters(), *module.buffers()]
    return len(_initialised(held)) < len(held)


def _copied_iterator(iterator: Any) -> Any:
    """Return an iterator at the same position, over the same items.

    Raises:
        TypeError: it cannot be copied, such as a generator.
    """
    try:
        made = iterator.__reduce__()
        make, arguments, *rest = made if isinstance(made, tuple) else (None, ())
        inner = [_copied_iterator(a) if isinstance(a, Iterator) else a for a in arguments]
        found = make(*inner)
        if rest and rest[0] is not None:
            found.__setstate__(rest[0])
    except Exception as error:
        raise TypeError(
            f"restore cannot copy the iterator {iterator!r:.100}: make it inside the function, or "
            "give a list"
        ) from error
    return found
