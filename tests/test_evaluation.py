from __future__ import annotations

import asyncio
import copy
import hashlib
import threading
from functools import partial

import pytest
import torch
from torch import nn

from helpers import run_in_thread
from seedscope import evaluating, seeded, snapshot
from seedscope.evaluation import _Gradients


def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 10), nn.AlphaDropout(0.5)),
        )


X = torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)


def modes(model):
    return [module.training for module in model.modules()]


def digest(model):
    hasher = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        hasher.update(name.encode() + tensor.numpy().tobytes())
    return hasher.hexdigest()


@pytest.fixture(autouse=True)
def the_outer_state_is_intact():
    before, grad = snapshot(), torch.is_grad_enabled()
    yield
    assert before.changed(snapshot()) == ()
    assert torch.is_grad_enabled() == grad


def test_a_block_is_seeded_and_in_eval_mode_without_gradients():
    model = network()
    with evaluating(model, seed=1029) as scope:
        assert not any(modes(model))
        assert not torch.is_grad_enabled()
        assert scope.seed == 1029
        first = model(X), torch.rand(3)
    assert all(modes(model))
    with evaluating(model, seed=1029):
        second = model(X), torch.rand(3)
    assert all(map(torch.equal, first, second))
    assert not first[0].requires_grad


def test_each_submodule_gets_its_own_mode_back():
    model = network()
    model[1].eval()  # a frozen batch norm
    model[4][2].eval()
    before = modes(model)

    def train_a_part_and_fail():
        model[3].train()
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError), evaluating(model):
            train_a_part_and_fail()
        assert modes(model) == before


def test_a_model_in_eval_mode_stays_in_it():
    model = network().eval()
    with evaluating(model):
        model.train()
    assert not any(modes(model))


def test_modules_removed_and_added_inside_keep_their_own_mode():
    model = network()
    removed, added = model[3], nn.Dropout().eval()
    with evaluating(model):
        model[3] = added
    assert removed.training
    assert not added.training
    assert model[4].training


def test_shared_submodules_and_several_models_keep_their_modes():
    shared = nn.Dropout()
    shared.eval()
    first, second = nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared, shared)
    second.eval()
    before = modes(first), modes(second)
    with evaluating(first, second, first):
        assert not any(modes(first) + modes(second))
    assert (modes(first), modes(second)) == before


def test_compiled_and_wrapped_models_evaluate():
    model = network()
    model[1].eval()
    before = modes(model)
    for wrap in (partial(torch.compile, backend="eager"), nn.DataParallel):
        wrapped = wrap(model)  # nn.DataParallel moves the model to the first GPU, if there is one
        x = X.to(model[0].weight.device)
        with evaluating(wrapped):
            assert not any(modes(model))
            result = wrapped(x)
        assert modes(model) == before
        with evaluating(model):
            assert torch.equal(model(x), result)
    torch._dynamo.reset()


def test_weights_and_running_statistics_are_untouched():
    model = network()
    before = digest(model)
    with evaluating(model):
        for _ in range(3):
            model(X)
    assert digest(model) == before
    with seeded(5):
        model(X)
    assert digest(model) != before, "in training mode the statistics move"


def test_results_and_caches_can_take_part_in_autograd_later():
    model = network()
    with evaluating(model):
        target = model(X)
        model.cache = X * 2
    with seeded(5):
        loss = ((model(model.cache) - target) ** 2).sum()
    loss.backward()
    assert model[0].weight.grad is not None


def test_grad_true_leaves_gradients_as_outside():
    model = network()
    with evaluating(model, grad=True):
        assert model(X).requires_grad
    with torch.no_grad(), evaluating(model, grad=True):
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize(
    "keep", [("dropout",), "dropout", (nn.Dropout, nn.AlphaDropout), ["Dropout"]]
)
def test_monte_carlo_dropout_stays_active_and_repeats(keep):
    model = network().eval()
    with evaluating(model, seed=1029, keep_training=keep):
        assert [type(m).__name__ for m in model.modules() if m.training] == [
            "Dropout",
            "AlphaDropout",
        ]
        first = [model(X) for _ in range(3)]
    assert not any(modes(model))
    with evaluating(model, seed=1029, keep_training=keep):
        assert all(map(torch.equal, first, [model(X) for _ in range(3)]))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((None,), {}, TypeError, "expected a torch.nn.Module, got None"),
        ((nn.Linear(1, 1), "model"), {}, TypeError, "got 'model'"),
        ((nn.Linear,), {}, TypeError, "expected a torch.nn.Module"),
        ((network(),), {"keep_training": ("attention",)}, ValueError, "matches no module"),
        ((network(),), {"keep_training": (nn.LSTM,)}, ValueError, "matches no module"),
        ((network(),), {"keep_training": ("batchnorm",)}, ValueError, "running statistics"),
        ((network(),), {"keep_training": (int,)}, TypeError, "got <class 'int'>"),
        ((network(),), {"seed": 1.5}, TypeError, "got 1.5"),
        ((network(),), {"deterministic": "no"}, ValueError, "got 'no'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_touched(arguments, options, error, says):
    with pytest.raises(error, match=says):
        evaluating(*arguments, **options)


def test_leaving_without_having_entered_is_an_error():
    with pytest.raises(RuntimeError, match="without having been entered"):
        evaluating(network()).__exit__(None, None, None)


def test_one_object_can_be_entered_again_even_inside_itself():
    model = network()
    scope = evaluating(model)
    with scope:
        with scope:
            assert not any(modes(model))
        assert not any(modes(model))
    assert all(modes(model))


@pytest.mark.parametrize(
    "odd", [property(lambda self: ["inner"]), lambda self: iter(()), lambda self: ["inner"]]
)
@pytest.mark.parametrize("name", ["modules", "named_modules"])
def test_submodules_are_found_below_an_overridden_modules(odd, name):
    inner = network()
    kind = type("Odd", (nn.Module,), {name: odd})
    child = kind()
    child.inner, child.nothing = inner, None
    with evaluating(nn.Sequential(child, inner)):
        assert not child.training
        assert not any(modes(inner))
    assert child.training
    assert all(modes(inner))


def test_a_refused_entry_leaves_the_model_alone():
    class Broken(nn.Module):
        def modules(self):
            yield self
            raise OSError("no more modules")

    model = Broken()
    with pytest.raises(OSError, match="no more modules"), evaluating(model):
        pass
    assert model.training
    model = nn.Sequential(nn.Dropout(), nn.ReLU())
    evaluation = evaluating(model, keep_training="dropout")
    del model[0]
    with pytest.raises(ValueError, match="matches no module"), evaluation:
        pass
    assert all(module.training for module in model.modules())


# As a decorator

MODEL = network()


@evaluating(MODEL, seed=1029)
def evaluate(x):
    return MODEL(x), torch.rand(3), MODEL.training


@evaluating.of("model", seed=1029)
def evaluate_any(x, model=MODEL):
    return model(x), torch.rand(3), model.training


@evaluating.of("model", seed=1029)
def predictions(model, batches):
    for batch in batches:
        yield model(batch), model.training


class Trainer:
    def __init__(self):
        self.model = network()

    @evaluating.of("self.model", seed=1029, keep_training=("dropout",))
    def validate(self, x):
        return self.model(x), self.model.training


def test_decorated_functions_evaluate():
    *first, training = evaluate(X)
    assert not training
    assert MODEL.training
    *second, _ = evaluate_any(X)
    *third, _ = evaluate_any(model=copy.deepcopy(MODEL), x=X)
    for other in (second, third):
        assert all(map(torch.equal, first, other))
    assert evaluate_any.__name__ == "evaluate_any"


def test_decorated_generators_evaluate_only_in_their_body():
    steps = predictions(MODEL, [X, X])
    first, training = next(steps)
    assert not training
    assert MODEL.training
    assert torch.is_grad_enabled()
    assert torch.equal(next(steps)[0], first)
    assert [*steps] == []


@pytest.mark.parametrize("decorator", [evaluating(MODEL), evaluating.of("model")])
def test_coroutines_and_async_generators_evaluate_each_step(decorator):
    inside, between = [], []

    @decorator
    async def evaluate_once(model):
        inside.append((model.training, torch.is_grad_enabled()))
        await asyncio.sleep(0)
        inside.append((model.training, torch.is_grad_enabled()))
        return "result"

    @decorator
    async def evaluate_twice(model):
        for _ in range(2):
            yield model.training, torch.is_grad_enabled()

    async def collect():
        task = asyncio.create_task(evaluate_once(MODEL))
        while not task.done():
            await asyncio.sleep(0)
            between.append((MODEL.training, torch.is_grad_enabled()))
        async for step in evaluate_twice(MODEL):
            inside.append(step)
            between.append((MODEL.training, torch.is_grad_enabled()))
        return task.result()

    assert asyncio.run(collect()) == "result"
    assert inside == [(False, False)] * 4
    assert set(between) == {(True, True)}
    assert MODEL.training


@pytest.mark.parametrize("decorator", [evaluating(MODEL), evaluating.of("model")])
def test_a_decorated_generator_keeps_its_return_value(decorator):
    @decorator
    def steps(model):
        yield model.training
        return "result"

    def delegate():
        return (yield from steps(MODEL))

    running = delegate()
    assert next(running) is False
    assert MODEL.training
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value == "result"


def test_methods_name_the_model_by_an_attribute():
    trainer = Trainer()
    first, training = trainer.validate(X)
    assert not training
    assert trainer.model.training
    assert torch.equal(first, trainer.validate(X)[0])


def test_a_missing_argument_is_refused():
    with pytest.raises(TypeError, match="has no argument 'net'"):
        evaluating.of("net")(evaluate_any)


def test_an_evaluation_that_another_thread_leaves_tells_of_the_gradients():
    gradients = _Gradients()
    state = gradients.capture()
    with pytest.raises(RuntimeError, match="gradients are still off in thread"):
        run_in_thread(lambda: gradients.restore(state))


def test_a_forked_child_has_no_gradients_of_a_thread_that_it_lacks():
    ended = run_in_thread(threading.get_ident)
    _Gradients().restore((ended, False))
    assert torch.is_grad_enabled()
