"""Evaluations that are left in another order than the reverse of their entries."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from torch import nn

from interrupts import FaultAt, not_as_before
from seedscope import ScopeConflictError, evaluating, snapshot


def network():
    model = nn.Sequential(nn.ReLU(), nn.Dropout(), nn.Sequential(nn.Dropout(), nn.ReLU()))
    model[0].eval()
    return model, model[1:], nn.Sequential(model[2], nn.Dropout())


def modes(models):
    return [module.training for model in models for module in model.modules()]


@pytest.mark.parametrize("parts", [*itertools.product(range(3), repeat=3)])
def test_evaluations_that_share_modules_give_back_modes_and_gradients_in_any_order(parts):
    models = network()
    outer = modes(models)
    for order in itertools.permutations(range(3)):
        evaluations = [evaluating(models[part]) for part in parts]
        for evaluation in evaluations:
            evaluation.__enter__()
        for number, index in enumerate(order):
            is_innermost = all(index > other for other in order[number + 1 :])
            told = contextlib.nullcontext() if is_innermost else pytest.raises(ScopeConflictError)
            with told:
                evaluations[index].__exit__(None, None, None)
        assert modes(models) == outer
        assert torch.is_grad_enabled()


def test_a_fault_in_the_exit_of_an_outer_evaluation_loses_no_mode():
    models, before = network(), snapshot()
    outer = modes(models)
    for place in range(1, 100_000, 3):
        evaluations = [evaluating(models[0]), evaluating(models[1]), evaluating(models[2])]
        for evaluation in evaluations:
            evaluation.__enter__()
        with contextlib.suppress(ScopeConflictError):
            fault = FaultAt(place, event="opcode")
            fault.run(lambda first=evaluations[0]: first.__exit__(None, None, None))
        for evaluation in reversed(evaluations):
            if evaluation.entered():
                evaluation.__exit__(None, None, None)
        assert (modes(models), not_as_before(before)) == (outer, ()), fault.where
        if fault.left > 0:
            break
    assert place > 1_000
