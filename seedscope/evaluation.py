"""`evaluating`: equal numbers from the same weights on the same data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import nn

from .scope.options import Options
from .scope.scope import Scope
from .scope.seeded import Seeded
from .scope.wrapping import wrap
from .support.compiler import opaque
from .support.modes import Deterministic
from .support.torch_internals import children

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound="_Evaluation")

_MODULES = nn.Module.modules


class evaluating:
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
        self._seeded = Seeded(seed, Options(deterministic))
        self._models = (model, *more)
        self._grad = grad
        self._keep = _check_keep(keep_training)
        self._open: list[_Evaluation] = []
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

            def for_call(args: Any, kwargs: Any, *, resumes: bool = False) -> _Evaluation:
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                model = bound.arguments[name]
                for attribute in attributes:
                    model = getattr(model, attribute)
                return evaluating(model, **options)._for_call(args, kwargs, resumes=resumes)

            return cast(F, wrap(function, for_call))

        return decorate

    def __enter__(self) -> Scope:
        evaluation = self._for_call((), {})
        self._open.append(evaluation)
        try:
            return evaluation.__enter__().scope
        except BaseException:
            self._open.remove(evaluation)
            raise

    def __exit__(self, *raised: Any) -> None:
        if not self._open:
            raise RuntimeError("evaluating(...) was left without having been entered")
        self._open.pop().__exit__(*raised)

    def __call__(self, function: F) -> F:
        return cast(F, wrap(function, self._for_call))

    def _for_call(self, args: Any, kwargs: Any, *, resumes: bool = False) -> _Evaluation:
        scope = self._seeded.for_call(args, kwargs, resumes=resumes)
        return _Evaluation(scope, self._models, self._keep, self._grad)


class _Evaluation:
    """One evaluation: a scope, the modes of the modules, and gradients."""

    def __init__(
        self, scope: Scope, models: tuple[nn.Module, ...], keep: tuple[Any, ...], grad: bool
    ) -> None:
        self.scope = scope
        self._models = models
        self._keep = keep
        self._grad = grad
        self._outer: tuple[bool, list[tuple[nn.Module, bool]]] | None = None

    @opaque
    def __enter__(self: R) -> R:
        self.scope.__enter__()
        try:
            modules = _modules_of(self._models)
            kept = _modules_to_keep(modules, self._keep)
            self._outer = torch.is_grad_enabled(), [(m, m.training) for m in modules]
            for module in modules:
                if module.training:
                    _set_mode(module, False)
            for module in kept:
                _set_mode(module, True)
            if not self._grad:
                torch.set_grad_enabled(False)
            return self
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    @opaque
    def __exit__(self, *raised: Any) -> None:
        try:
            self._restore()
        except BaseException:
            self._restore()  # finish the restore, even if Ctrl-C interrupted it
            raise
        finally:
            self.scope.__exit__(*raised)

    def finish(self) -> None:
        """Log that the body of a decorated generator or coroutine has ended."""
        self.scope.finish()

    def _restore(self) -> None:
        if self._outer is None:
            return
        grad, modes = self._outer
        for module, mode in modes:
            if module.training is not mode:
                _set_mode(module, mode)
        torch.set_grad_enabled(grad)
        self._outer = None


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
