"""Activation checkpointing: a stream replays in the recomputation, or refuses to be entered."""

from __future__ import annotations

import copy
import pickle
import random
import threading
from contextlib import ExitStack, nullcontext

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from helpers import draw, run_in_thread
from recomputations import masks_of, replays
from seedscope import Stream, evaluating, isolated, seeded, snapshot
from seedscope.scope import block

REFUSED = r"checkpoint\(f, x, use_reentrant=False, context_fn=stream.recompute\)"


@pytest.fixture(autouse=True)
def outer():
    """A block around each test: checkpointing and models draw from torch."""
    with seeded(7):
        yield


class Layer(torch.nn.Module):
    """Dropout from the stream, noise from NumPy and Python, and dropout from the caller."""

    def __init__(self, stream):
        super().__init__()
        self.stream = stream
        self.linear = torch.nn.Linear(16, 16)

    def forward(self, x):
        x = torch.nn.functional.dropout(self.linear(x), 0.5)
        with self.stream:
            x = torch.nn.functional.dropout(x, 0.5)
            x = x * (np.random.rand() + random.random())
        with self.stream:
            return torch.relu(x) * torch.rand(16)


def gradients(run, stream, layers=3, loops=2):
    """Return the gradients of some steps, and what the stream draws after them."""
    with seeded(3):
        network = [Layer(stream) for _ in range(layers)]
        x = torch.rand(4, 16)
    found = []
    with seeded(5):
        for _ in range(loops):
            y = x
            for layer in network:
                y = run(layer, y)
            y.square().sum().backward()
            found += [p.grad.clone() for layer in network for p in layer.parameters()]
        with stream:
            found.append(torch.rand(3))
    return found


def replayed(layer, x):
    return checkpoint(layer, x, use_reentrant=False, context_fn=layer.stream.recompute)


def equal(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize("early_stop", [True, False])
def test_gradients_are_those_without_checkpointing(early_stop):
    expected = gradients(lambda layer, x: layer(x), Stream(1029))
    before = snapshot()
    with torch.utils.checkpoint.set_checkpoint_early_stop(early_stop):
        assert equal(gradients(replayed, Stream(1029)), expected)
    assert snapshot() == before


def test_without_the_context_the_gradients_would_differ_so_it_is_refused():
    for reentrant in (True, False):
        layer = Layer(Stream(1029))
        x = torch.rand(4, 16, requires_grad=True)
        y = checkpoint(layer, x, use_reentrant=reentrant)
        before, stream_before = snapshot(), str(layer.stream.state_dict())
        with pytest.raises(RuntimeError, match=REFUSED):
            y.sum().backward()
        assert before.changed(snapshot()) == ()
        assert str(layer.stream.state_dict()) == stream_before


def test_checkpoints_inside_checkpoints_replay():
    class Outer(torch.nn.Module):
        def __init__(self, run, stream):
            super().__init__()
            self.run, self.stream = run, stream
            self.inner = torch.nn.ModuleList([Layer(stream), Layer(stream)])

        def forward(self, x):
            with self.stream:
                x = x * torch.rand(1)
            for layer in self.inner:
                x = self.run(layer, x)
            return x

    def run(inner, outer):
        with seeded(3):
            stream = Stream(1029)
            network, x = Outer(inner, stream), torch.rand(4, 16)
        with seeded(5):
            outer(network, x).square().sum().backward()
            with stream:
                return [*(p.grad for p in network.parameters()), torch.rand(1)]

    plain = lambda layer, x: layer(x)  # noqa: E731
    expected = run(plain, plain)
    assert equal(run(replayed, replayed), expected)
    assert equal(run(plain, replayed), expected)


def test_a_forward_inside_the_stream_replays_what_it_draws_from_it():
    def f(x):
        return x * np.random.rand() * torch.nn.functional.dropout(torch.ones(8), 0.5)

    def run(is_checkpointed, backward_inside):
        stream = Stream(1)
        x = torch.ones(8, requires_grad=True)
        with stream:
            draw()
            options = {"use_reentrant": False, "context_fn": stream.recompute}
            y = checkpoint(f, x, **options) if is_checkpointed else f(x)
            draw()
            if backward_inside:
                y.sum().backward()
            after = torch.rand(1)
        if not backward_inside:
            y.sum().backward()
        with stream:
            return [x.grad, after, torch.rand(1)]

    for backward_inside in (True, False):
        assert equal(run(True, backward_inside), run(False, backward_inside))


def test_a_second_backward_replays_again():
    layer = Layer(Stream(1029))
    x = torch.rand(4, 16, requires_grad=True)
    y = replayed(layer, x).sum()
    y.backward(retain_graph=True)
    first = x.grad.clone()
    with layer.stream:
        draw()
    y.backward()
    assert torch.equal(x.grad, 2 * first)


def test_a_recomputation_in_another_thread_replays():
    def run(backward, layer_of):
        stream = Stream(1029)
        with seeded(3):
            layer, x = Layer(stream), torch.rand(4, 16)
        with seeded(5):
            y = layer_of(layer, x).square().sum()
            backward(y.backward)
            after = torch.rand(1)
        with stream:
            return [*(p.grad for p in layer.parameters()), after, torch.rand(1)]

    expected = run(lambda b: b(), lambda layer, x: layer(x))
    assert equal(run(run_in_thread, replayed), expected)

    def join(function):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()

    assert equal(run(join, replayed), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_scope_with_a_seed_replays_by_itself(reentrant):
    @seeded(11)
    def f(x):
        return torch.nn.functional.dropout(x, 0.5) * x

    x = torch.rand(64, requires_grad=True)
    checkpoint(f, x, use_reentrant=reentrant).sum().backward()
    got, x.grad = x.grad, None
    f(x).sum().backward()
    assert torch.equal(got, x.grad)


def fresh_block(x):
    with seeded():
        return torch.nn.functional.dropout(x, 0.5) * x


@seeded
def fresh_call(x):
    return torch.nn.functional.dropout(x, 0.5) * x


@seeded
def fresh_generator(x):
    yield torch.nn.functional.dropout(x, 0.5) * x


def fresh_evaluation(x):
    with evaluating(torch.nn.Dropout(), seed=None, grad=True):
        return torch.nn.functional.dropout(x, 0.5) * x


FRESH = [fresh_block, fresh_call, lambda x: next(fresh_generator(x)), fresh_evaluation]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("f", FRESH)
def test_a_fresh_scope_is_refused_in_a_recomputation(f, reentrant):
    x = torch.rand(64, requires_grad=True)
    y = checkpoint(f, x, use_reentrant=reentrant).sum()
    before = snapshot()
    with pytest.raises(RuntimeError, match=f"Give the scope a seed.*{REFUSED}"):
        y.backward()
    assert before.changed(snapshot()) == ()


@pytest.mark.parametrize("f", FRESH)
def test_a_fresh_scope_inside_what_replays_is_replayed(f):
    stream = Stream(1029)

    def inside_a_stream(x):
        with stream:
            return f(x) + f(x)

    def inside_a_seed(x):
        with seeded(3):
            return f(x) + f(x)

    for function in (inside_a_stream, inside_a_seed):
        x = torch.rand(64, requires_grad=True)
        with stream:
            state = stream.state_dict()
        options = {"use_reentrant": False, "context_fn": stream.recompute}
        checkpoint(function, x, **options).sum().backward()
        got, x.grad = x.grad, None
        stream.load_state_dict(state)
        function(x).sum().backward()
        assert torch.equal(got, x.grad)


def test_a_streams_generator_that_began_before_is_refused_too():
    """Its body would go on, though the stream stands where it stood."""
    stream = Stream(1029)

    @stream
    def numbers():
        while True:
            yield torch.rand(1).item()

    running = numbers()
    with pytest.raises(RuntimeError, match=REFUSED):
        replays(lambda: next(running), stream.recompute)


def test_a_generator_that_began_before_is_refused():
    @seeded(11)
    def numbers():
        while True:
            yield torch.rand(64)

    running = numbers()
    x = torch.rand(64, requires_grad=True)
    y = checkpoint(lambda x: x * x * next(running), x, use_reentrant=False).sum()
    with pytest.raises(RuntimeError, match=REFUSED):
        y.backward()
    y = checkpoint(lambda x: x * x * next(numbers()), x, use_reentrant=False).sum()
    y.backward()
    first = torch.rand(64, generator=torch.Generator().manual_seed(11))
    assert torch.allclose(x.grad, 2 * x * first)


def test_two_streams_replay_by_combined_contexts():
    one, other = Stream(1), Stream(2)

    def f(x):
        with one:
            x = torch.nn.functional.dropout(x, 0.5)
        with other:
            return torch.nn.functional.dropout(x, 0.5) * x

    x = torch.rand(64, requires_grad=True)
    states = [stream.state_dict() for stream in (one, other)]
    checkpoint(f, x, use_reentrant=False, context_fn=both(one, other)).sum().backward()
    got, x.grad = x.grad, None
    for stream, state in zip((one, other), states, strict=True):
        stream.load_state_dict(state)
    f(x).sum().backward()
    assert torch.equal(got, x.grad)


def test_an_error_in_the_forward_leaves_the_stream_usable():
    stream = Stream(1029)
    calls = []

    def f(x):
        calls.append(1)
        with stream:
            if len(calls) == 2:
                raise ValueError("in the recomputation")
            return x * x * torch.rand(1)

    x = torch.rand(4, requires_grad=True)
    y = checkpoint(f, x, use_reentrant=False, context_fn=stream.recompute).sum()
    before = snapshot()
    with pytest.raises(ValueError, match="in the recomputation"):
        y.backward()
    assert before.changed(snapshot()) == ()
    with seeded(1029):
        _, expected = torch.rand(1), torch.rand(1)
    with stream:
        assert torch.equal(torch.rand(1), expected)


def isolated_fresh():
    with isolated(), seeded():
        return random.random()


def test_isolation_hides_no_fresh_scope():
    for f in (isolated_fresh, isolated(lambda: helper())):
        with pytest.raises(RuntimeError, match=REFUSED):
            replays(f)


@seeded
def helper():
    return random.random()


def test_a_stream_replays_only_what_is_drawn_from_it():
    """Inside another scope that the stream holds, torch itself restores its generator."""
    stream, other = Stream(1029), Stream(5)

    def draw_from_torch():
        return torch.rand(1).item()

    with stream, seeded(5):
        assert replays(draw_from_torch, stream.recompute)
    with stream, isolated():
        torch.manual_seed(42)
        assert replays(draw_from_torch, stream.recompute)
    with stream, seeded(5, sources=["python"]):
        assert replays(lambda: (torch.rand(1) * np.random.rand()).item(), stream.recompute)
    for first, second in ((stream, other), (other, stream)):
        with stream, other:
            assert replays(lambda: torch.rand(1).item() + random.random(), both(first, second))


def both(*streams):
    """Return the contexts of several streams as one pair."""

    def contexts():
        return nullcontext(), Both([stream.recompute()[1] for stream in streams])

    return contexts


class Both:
    def __init__(self, contexts):
        self.contexts, self.stack = contexts, ExitStack()

    def __enter__(self):
        for context in self.contexts:
            self.stack.enter_context(context)

    def __exit__(self, *raised):
        self.stack.close()


def test_a_state_loaded_between_is_not_replayed():
    stream = Stream(1029)

    def f():
        with stream:
            return torch.rand(1).item()

    steps = masks_of(f, stream.recompute)
    next(steps)
    stream.load_state_dict(Stream(5).state_dict())
    forward, again = next(steps)
    assert forward == again
    with stream, seeded(5):
        expected = torch.rand(1).item()
    assert f() == expected


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_loaded_stream_is_refused_in_a_backward_of_any_number(number, monkeypatch):
    stream = Stream(1029)
    stream.load_state_dict(stream.state_dict())
    monkeypatch.setattr(block, "current_backward", lambda: number)
    with pytest.raises(RuntimeError, match=REFUSED):
        stream.__enter__()


@pytest.mark.parametrize("again", [copy.copy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_in_a_recomputation_replays_if_its_stream_does(again):
    stream = Stream(1029)

    def f():
        with again(stream):
            return torch.rand(1).item()

    with stream:
        draw()
    steps = masks_of(f)
    next(steps)
    with stream:
        draw()
    with pytest.raises(RuntimeError, match=REFUSED):
        next(steps)
    assert replays(f, stream.recompute)


def test_a_state_loaded_in_a_recomputation_is_refused():
    stream, saved = Stream(0), Stream(1029).state_dict()

    def f():
        loaded = Stream(0)
        loaded.load_state_dict(saved)
        with loaded:
            return torch.rand(1).item()

    with pytest.raises(RuntimeError, match=REFUSED):
        replays(f)
    assert stream.seed == 0
