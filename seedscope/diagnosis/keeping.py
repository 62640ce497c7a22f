"""What `restore=` names: its state is kept, and put back before each run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..sources.generators import KINDS
from .contents import is_lazy

_KINDS = (
    "a module, an optimizer, something else with state_dict() and load_state_dict(), a tensor, "
    "an array, a generator of random numbers, or an iterator that is an argument"
)
# Where a module has its parameters, buffers and submodules: no public call sets them all.
_PARTS = ("_parameters", "_buffers", "_modules")

PutBack = Callable[[], object]


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
        self._put_back: list[tuple[Any, PutBack]] = []
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
                self._put_back.append((thing, _keep(thing)))

    def restore(self) -> None:
        """Put every state back, also if one cannot be.

        Raises:
            RuntimeError: some states could not be put back; the others were.
        """
        failures = []
        for thing, put_back in self._put_back:
            try:
                put_back()
            except Exception as error:
                failures.append((type(thing).__name__, error))
        if failures:
            text = "; ".join(f"{name}: {error!r:.200}" for name, error in failures)
            raise RuntimeError(f"restore could not put back {text}") from failures[0][1]

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
    """Return whether `Kept` can keep a thing that is no argument.

    Asks the class, and not the thing, which may answer to every name.
    """
    kind = type(thing)
    if issubclass(kind, (nn.Module, Tensor, np.ndarray, *KINDS)):
        return True
    names = ("state_dict", "load_state_dict")
    return not issubclass(kind, type) and all(callable(getattr(kind, n, None)) for n in names)


def _keep(thing: Any) -> PutBack:
    """Return what puts the present state of a thing back."""
    if not can_keep(thing):
        raise TypeError(f"restore cannot keep {thing!r:.100}: it must be {_KINDS}")
    try:
        if isinstance(thing, nn.Module):
            return _keep_module(thing)
        if isinstance(thing, Optimizer) and type(thing).state_dict is Optimizer.state_dict:
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
    except Exception as error:
        raise TypeError(f"restore cannot keep {thing!r:.100}: {error!r:.200}") from error
    return lambda: thing.load_state_dict(copy.deepcopy(saved))


def _keep_module(module: nn.Module) -> PutBack:
    # Not by load_state_dict: it has neither gradients, modes nor buffers that are not persistent,
    # and refuses a module that has changed its parts.
    tensors = [*module.parameters(), *module.buffers()]
    steps = [_keep_tensor(one) for one in _initialised(tensors)]
    for one in module.modules():
        steps += [_keep_dict(vars(one)[name]) for name in _PARTS]
        steps.append(_keep_mode(one))
        if type(one).get_extra_state is not nn.Module.get_extra_state:
            steps.append(_keep_extra_state(one))
    return lambda: [step() for step in steps]


def _keep_mode(module: nn.Module) -> PutBack:
    training = module.training
    return lambda: setattr(module, "training", training)


def _keep_extra_state(module: nn.Module) -> PutBack:
    state = copy.deepcopy(module.get_extra_state())
    return lambda: module.set_extra_state(copy.deepcopy(state))


def _keep_dict(held: dict[Any, Any]) -> PutBack:
    """Keep which objects a dict holds, and not their states."""
    before = dict(held)

    def put_back() -> None:
        if [*held] != [*before] or any(held[name] is not before[name] for name in before):
            held.clear()
            held.update(before)

    return put_back


def _keep_tensor(tensor: Tensor) -> PutBack:
    """Keep value, gradient and whether it needs one; other views of its memory stay views."""
    if tensor.numel() > 1 and 0 in tensor.stride():
        raise TypeError("a tensor that repeats its memory cannot be written to")
    value = tensor.detach().clone()
    requires_grad = tensor.requires_grad
    grad = tensor.grad if tensor.is_leaf else None
    grad_value = None if grad is None else grad.detach().clone()

    def put_back() -> None:
        _write(tensor, value)
        if grad is not None and grad_value is not None:
            _write(grad, grad_value)
        if tensor.is_leaf:
            tensor.grad = grad
            if tensor.requires_grad is not requires_grad:
                tensor.requires_grad_(requires_grad)

    return put_back


def _write(tensor: Tensor, value: Tensor) -> None:
    # Through .data, which leaves the version: a graph that was built before stays usable.
    is_alike = (tensor.dtype, tensor.shape, tensor.device) == (
        value.dtype,
        value.shape,
        value.device,
    )
    if is_alike and tensor.layout is torch.strided:
        tensor.data.copy_(value)
    else:
        tensor.data = value.clone()


def _keep_optimizer(optimizer: Optimizer) -> PutBack:
    # Not by load_state_dict, which converts the state to the dtype of the parameter.
    state = {one: _keep_value(held) for one, held in optimizer.state.items()}
    groups = [
        (group, {name: _keep_value(one) for name, one in group.items() if name != "params"})
        for group in optimizer.param_groups
    ]
    parameters = [[*group["params"]] for group in optimizer.param_groups]

    def put_back() -> None:
        optimizer.state.clear()
        optimizer.state.update({one: given() for one, given in state.items()})
        optimizer.param_groups[:] = [group for group, _ in groups]
        for (group, values), held in zip(groups, parameters, strict=True):
            group.clear()
            group.update({name: given() for name, given in values.items()}, params=[*held])

    return put_back


def _keep_value(value: Any) -> Callable[[], Any]:
    """Return what gives a value as it is now: the same tensors, with the same contents."""
    if isinstance(value, Tensor):
        put_back = _keep_tensor(value)

        def tensor() -> Tensor:
            put_back()
            return value

        return tensor
    if type(value) is dict:
        items = {key: _keep_value(one) for key, one in value.items()}
        return lambda: {key: given() for key, given in items.items()}
    if type(value) in (list, tuple):
        kept = [_keep_value(one) for one in value]
        return lambda: type(value)([given() for given in kept])
    saved = copy.deepcopy(value)
    return lambda: copy.deepcopy(saved)


def _initialised(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [one for one in tensors if not is_lazy(one)]


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
