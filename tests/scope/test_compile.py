"""torch.compile gives eager's results, and leaves the outer state intact."""

from __future__ import annotations

import functools

import pytest
import torch

from seedscope import Stream, current_scope, isolated, seeded, snapshot
from seedscope.support import compiler, torch_internals

# The eager backends run the captured graph with torch's own kernels, so random numbers must
# equal eager's, bit for bit. inductor has its own generators: see below.
BACKENDS = ["eager", "aot_eager"]


def draw(x):
    return x + torch.rand(3), torch.nn.functional.dropout(torch.ones(8), 0.5)


def draw_twice(x):
    # Both results are used: AOTAutograd drops a draw that nothing uses, and draws less than eager.
    first, second = draw(x), draw(x)
    return first[0] + second[0], first[1] + second[1]


X = torch.zeros(3)
with seeded(1029):
    EAGER = draw(X)
with seeded(1029):
    EAGER_TWICE = draw_twice(X)


decorated = seeded(1029)(draw)
existing = seeded(1029)


def scope_inside(x):
    y = x * 2
    with seeded(1029):
        result = draw(y)
    return result[0] * 1, result[1] * 1


def existing_scope_inside(x):
    with existing as scope:
        result = draw(x)
        assert scope.seed == 1029
    return result


def calls_decorated(x):
    y = x * 2
    result = decorated(y)
    return result[0] * 1, result[1] * 1


def draws_around_decorated(x):
    before = torch.rand(1)
    result = decorated(x)
    return (*result, before, torch.rand(1))


def stream_inside(x):
    stream = Stream(1029)
    with stream:
        first = draw(x)
    with stream:
        second = draw(x)
    return first[0] + second[0], first[1] + second[1]


def snapshot_inside(x):
    moment = snapshot()
    torch.rand(3)
    moment.restore()
    with seeded(1029):
        return draw(x)


def the_rest_inside(x):
    """Everything else that a step may call."""
    stream = Stream(1029)
    with isolated():
        torch.rand(3)
    stream.load_state_dict(stream.state_dict())
    with stream:
        assert current_scope().seed == 1029
        stream.state_dict()
        return draw(x)


class Model(torch.nn.Module):
    @seeded(1029)
    def forward(self, x):
        return draw(x)


def assert_same(results, expected):
    for got, want in zip(results, expected, strict=True):
        assert torch.equal(got, want)


@pytest.fixture(params=BACKENDS)
def compiled(request):
    yield lambda function: torch.compile(function, backend=request.param)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (scope_inside, EAGER),
        (existing_scope_inside, EAGER),
        (decorated, EAGER),
        (calls_decorated, EAGER),
        (stream_inside, EAGER_TWICE),
        (snapshot_inside, EAGER),
        (the_rest_inside, EAGER),
        (Model(), EAGER),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_scopes_in_compiled_code_give_eagers_results(compiled, function, expected):
    function = compiled(function)
    for _ in range(3):
        before = snapshot()
        assert_same(function(X), expected)
        assert before.changed(snapshot()) == ()


@pytest.mark.parametrize("function", [draw, draw_twice])
def test_compiled_functions_in_a_scope_give_eagers_results(compiled, function):
    run = compiled(function)
    before = snapshot()
    for _ in range(3):
        with seeded(1029):
            assert_same(run(X), EAGER if function is draw else EAGER_TWICE)
    assert before.changed(snapshot()) == ()


def test_the_callers_draws_continue_around_a_decorated_call(compiled):
    run = compiled(draws_around_decorated)
    with seeded(5):
        expected = (*draws_around_decorated(X), torch.rand(4))
    assert_same(expected[:2], EAGER)
    with seeded(5):
        assert_same((*run(X), torch.rand(4)), expected)


def set_up(x):
    return draw(x)


set_up.__name__ = "setup_method"  # `seeded` makes a proxy of a function of this name


@pytest.mark.parametrize(
    "target",
    [
        functools.partial(draw),
        torch.rand_like,
        torch.nn.Dropout(0.5),
        Model().forward,
        set_up,
    ],
    ids=["partial", "builtin", "object", "method", "proxied function"],
)
def test_other_callables_keep_their_scope(compiled, target):
    decorated = seeded(1029)(target)
    expected = decorated(X)
    run = compiled(lambda x: decorated(x))
    before = snapshot()
    for got in (run(X), run(X), compiled(decorated)(X)):
        assert_same(got, expected)
    assert before.changed(snapshot()) == ()


def test_a_decorated_generator_runs_inside_compiled_code(compiled):
    @seeded(1029)
    def steps(x):
        yield draw(x)
        yield draw(x)

    first, second = compiled(lambda x: [*steps(x)])(X)
    assert_same(first, EAGER)
    assert_same([a + b for a, b in zip(first, second, strict=True)], EAGER_TWICE)


def test_the_toolkit_is_not_traced(compiled):
    from torch._dynamo.utils import counters

    counters.clear()
    compiled(scope_inside)(X)
    breaks = "".join(counters["graph_break"])
    assert "asyncio" not in breaks
    assert "lru_cache" not in breaks


def test_opaque_falls_back_to_torchs_public_disable(monkeypatch):
    monkeypatch.setattr(torch_internals, "_eval_frame", object())

    def body(x):
        with seeded(1029):
            return draw(x)

    outer = torch.compile(lambda x: compiler.opaque(body)(x * 2), backend="eager")
    assert_same(outer(X), EAGER)
    torch._dynamo.reset()


@pytest.mark.slow
def test_inductor_repeats_and_its_fallback_gives_eagers_results():
    import torch._inductor.config

    run = torch.compile(draw)
    before = snapshot()
    results = []
    for _ in range(3):
        with seeded(1029):
            results.append(run(X))
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])
    torch._dynamo.reset()
    with torch._inductor.config.patch(fallback_random=True):
        run = torch.compile(draw)
        with seeded(1029):
            assert_same(run(X), EAGER)
        run = torch.compile(scope_inside)
        assert_same(run(X), EAGER)
    torch._dynamo.reset()
    assert before.changed(snapshot()) == ()
