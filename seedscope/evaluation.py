"""`evaluating`: equal numbers from the same weights on the same data."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import nn

from .scope.block import move_shared
from .scope.opener import Opener
from .scope.options import Options
from .scope.position import Position
from .scope.scope import Scope
from .scope.wrapping import wrap
from .seeds import check_seed
from .sources.base import Source
from .support.modes import Deterministic
from .support.torch_internals import children

F = TypeVar("F", bound=Callable[..., Any])

_State = dict[nn.Module, bool]
_MODULES = nn.Module.modules


class evaluating(Opener[Scope]):
    """Eval mode, no gradients and a seeded scope for a block or a function.

    On exit each submodule gets its own mode back, so that a frozen batch norm stays frozen.
    Weights, buffers and running statistics are not changed.

    The block sets the modes as `training` flags, and does not call `train()` or `eval()`: a
    module's own `train()` may change the model, for example merge adapters into the weights.
    Gradients are off as by `torch.no_grad`, and not as by `torch.inference_mode`, so that the
    results, and tensors that a module caches inside, can take part in autograd later.

    Args:
        model, more: modules, also wrapped modules (compiled, DataParallel).
        seed, deterministic: as for `seeded`. `seed=None` draws a fresh seed for each entry or call.
        grad: `True` leaves gradients as they are.
        keep_training: the modules that stay in training mode, for Monte-Carlo dropout: module
            classes, or parts of class names such as `"dropout"`.

    Raises:
        TypeError: a model is not a `torch.nn.Module`.
        ValueError: `keep_training` matches no module, or matches a module that would update its
            running statistics.

    See: https://docs.pytorch.org/docs/stable/notes/autograd.html#locally-disable-grad-doc
    """

    def __init__(
        self,
        model: nn.Module,
        *more: nn.Module,
        seed: int | None = 1029,
        deterministic: Deterministic = True,
        grad: bool = False,
        keep_training: Sequence[str | type[nn.Module]] = (),
    ) -> None:
        self._seed = None if seed is None else check_seed(seed)
        self._options = Options(deterministic)
        self._models = (model, *more)
        self._grad = grad
        self._keep = _check_keep(keep_training)
        for one in self._models:
            if not isinstance(one, nn.Module):
                raise TypeError(f"expected a torch.nn.Module, got {one!r} ({type(one).__name__})")
        if self._keep:
            _modules_to_keep(_modules_of(self._models), self._keep)

    @staticmethod
    def of(argument: str, **options: Any) -> Callable[[F], F]:
        """Return a decorator that evaluates the model that a call gets as `argument`.

        Use it as `@evaluating.of("model", seed=1029)`. Attributes can follow the argument:
        `@evaluating.of("self.model")` for a method. The options are those of `evaluating`.

        Raises:
            TypeError: the function has no such argument.
        """
        name, *attributes = argument.split(".")

        def decorate(function: F) -> F:
            signature = inspect.signature(function)
            if name not in signature.parameters:
                raise TypeError(f"{function!r} has no argument {name!r}; it has {signature}")

            def for_call(args: Any, kwargs: Any, *, resumes: bool = False) -> Scope:
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                model = bound.arguments[name]
                for attribute in attributes:
                    model = getattr(model, attribute)
                return evaluating(model, **options).for_call(args, kwargs, resumes=resumes)

            return cast(F, wrap(function, for_call))

        return decorate

    def _block(self, opener: Opener[Scope] | None, resumes: bool) -> Scope:
        modes = _Modes(self._models, self._keep, self._grad)
        return _Evaluation(modes, self._seed, self._options, opener, resumes)


class _Evaluation(Scope):
    """A scope that also governs the modes of modules."""

    __slots__ = ("_modes",)

    def __init__(
        self, modes: _Modes, seed: int | None, options: Options, opener: Any, resumes: bool
    ) -> None:
        super().__init__(seed, options, opener, Position() if resumes else None)
        self._modes = modes

    def _governed(self) -> tuple[Any, ...]:
        return (*super()._governed(), _GRADIENTS, self._modes)

    def _start(self, sources: list[Source], states: dict[Source, Any]) -> None:
        super()._start(sources, states)
        assert self._outer is not None
        self._modes.apply(self._outer[self._modes])

    def _take_over(self, outer: dict[Any, Any]) -> None:
        super()._take_over(outer)
        mine: _State = (self._outer or {}).get(self._modes, {})
        for thing, modes in outer.items():  # of other models, which may share modules with these
            if isinstance(thing, _Modes):
                move_shared(modes, mine)


class _Gradients:
    """Whether gradients are on in this thread."""

    name = "gradients"

    def capture(self) -> tuple[int, bool]:
        return threading.get_ident(), torch.is_grad_enabled()

    def restore(self, state: tuple[int, bool]) -> None:
        thread, is_on = state
        if thread == threading.get_ident():
            torch.set_grad_enabled(is_on)
        elif any(other.ident == thread for other in threading.enumerate()):  # no forked child
            raise RuntimeError(
                f"each thread has its own: gradients are still off in thread {thread}, which "
                "entered the evaluation and did not leave it"
            )


_GRADIENTS = _Gradients()


class _Modes:
    """The modes of all modules, which an evaluation sets."""

    name = "modes"

    def __init__(self, models: tuple[nn.Module, ...], keep: tuple[Any, ...], grad: bool) -> None:
        self._models, self._keep, self._grad = models, keep, grad

    def capture(self) -> _State:
        return {module: module.training for module in _modules_of(self._models)}

    def apply(self, captured: _State) -> None:
        kept = _modules_to_keep([*captured], self._keep)
        for module in captured:
            if module.training:
                _set_mode(module, False)
        for module in kept:
            _set_mode(module, True)
        if not self._grad:
            torch.set_grad_enabled(False)

    def restore(self, state: _State) -> None:
        for module, mode in state.items():
            if module.training is not mode:
                _set_mode(module, mode)


def _set_mode(module: nn.Module, mode: bool) -> None:
    # nn.Module.__setattr__ searches parameters, buffers and modules first, in 1 us per module.
    object.__setattr__(module, "training", mode)


def _modules_of(models: Iterable[nn.Module]) -> list[nn.Module]:
    """Return every module once, also modules that several models share."""
    found: dict[nn.Module, None] = {}
    for model in models:
        # A class that overrides `modules` may list more than its children.
        found |= dict.fromkeys([model] if type(model).modules is _MODULES else model.modules())
    to_visit = [*found]
    for module in to_visit:
        for child in children(module):
            if child is not None and child not in found:
                found[child] = None
                to_visit.append(child)
    return [*found]


def _check_keep(keep: Any) -> tuple[Any, ...]:
    if isinstance(keep, (str, type)):
        keep = (keep,)
    for entry in keep:
        if not isinstance(entry, str) and not (
            isinstance(entry, type) and issubclass(entry, nn.Module)
        ):
            raise TypeError(f"keep_training takes module classes and names, got {entry!r}")
    return tuple(entry.lower() if isinstance(entry, str) else entry for entry in keep)


def _modules_to_keep(modules: list[nn.Module], keep: tuple[Any, ...]) -> list[nn.Module]:
    kept = []
    for entry in keep:
        matching = [
            module
            for module in modules
            if (
                entry in type(module).__name__.lower()
                if isinstance(entry, str)
                else isinstance(module, entry)
            )
        ]
        if not matching:
            classes = sorted({type(module).__name__ for module in modules})
            raise ValueError(f"keep_training={entry!r} matches no module; there are {classes}")
        kept += matching
    for module in kept:
        if getattr(module, "track_running_stats", False):
            raise ValueError(
                f"keep_training would let {module} update its running statistics, which an "
                "evaluation must not change: remove the module from keep_training"
            )
    return kept
