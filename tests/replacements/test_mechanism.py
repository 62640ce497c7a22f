"""When an operation is replaced, and what a caller sees of it."""

from __future__ import annotations

import asyncio
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F

from seedscope import register_replacement, replacements, seeded
from seedscope.replacements import registry
from seedscope.replacements.gate import GATE

AVERAGE = "aten::_adaptive_avg_pool2d_backward"
PUT = "aten::put_"


def images() -> torch.Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(7)).requires_grad_()


def pool(values: torch.Tensor) -> torch.Tensor:
    """Return the gradient of an adaptive average pool."""
    values.grad = None
    F.adaptive_avg_pool2d(values, (4, 2)).pow(2).sum().backward()
    return values.grad


def put() -> torch.Tensor:
    return torch.zeros(8).put_(torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 3.0]))


def test_an_operation_that_raised_runs_on_the_cpu_too():
    with seeded(1029) as scope:
        assert put().tolist() == [1, 3, 0, 0, 0, 0, 0, 0]
        assert scope.replaced == {PUT: 1}
    assert scope.replaced == {PUT: 1}
    with seeded(1029, replacements=False), pytest.raises(RuntimeError, match="put_ does not have"):
        put()
    put()  # as before, outside


def test_a_kernel_of_torch_that_repeats_keeps_its_bits():
    values, index = torch.zeros(8), torch.tensor([0, 1, 1])
    with seeded(1029) as scope:
        values.put_(index, torch.tensor([0.1, 0.2, 0.3]), accumulate=True)
        assert scope.replaced == {}
    outside = torch.zeros(8).put_(index, torch.tensor([0.1, 0.2, 0.3]), accumulate=True)
    assert torch.equal(values, outside)


def test_the_native_kernel_is_tried_once_for_each_type_and_option(native_calls):
    x = images()
    with seeded(1029) as scope:
        for _ in range(3):
            pool(x)
    assert scope.replaced == {AVERAGE: 3}
    tries = native_calls.count(AVERAGE)
    assert 1 <= tries <= 2  # the try, and the run beside which the replacement proves itself
    with seeded(1029):
        pool(x)
        assert native_calls.count(AVERAGE) == tries
        pool(x.detach().double().requires_grad_())
        assert native_calls.count(AVERAGE) > tries


@pytest.mark.parametrize("mode", ["warn", "cudnn", False])
def test_the_gate_stays_closed_in_other_modes(mode, raising_cpu):
    before = torch.get_deterministic_debug_mode()
    with seeded(1029, deterministic=mode) as scope, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pool(images())
        assert scope.replaced == {}
        assert not GATE.is_open
    assert torch.get_deterministic_debug_mode() == before


@pytest.mark.parametrize("mode", ["cudnn", False])
def test_modes_that_leave_the_strict_flag_leave_the_gate_too(mode, raising_cpu):
    with seeded(1029) as outer:
        with seeded(1, deterministic=mode) as inner:
            pool(images())
            assert inner.replaced == {AVERAGE: 1}
        assert outer.replaced == {AVERAGE: 1}
        with seeded(1, deterministic="warn"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pool(images())
        with (
            seeded(1, deterministic=mode, replacements=False),
            pytest.raises(RuntimeError, match="deterministic"),
        ):
            pool(images())
        assert outer.replaced == {AVERAGE: 1}
    assert not GATE.is_open


def test_nothing_is_replaced_while_the_program_has_switched_determinism_off(native_calls):
    with seeded(1029) as scope:
        torch.use_deterministic_algorithms(False)
        pool(images())
        assert scope.replaced == {}
        assert native_calls == [AVERAGE]
        torch.use_deterministic_algorithms(True)
        pool(images())
        assert scope.replaced == {AVERAGE: 1}


def test_a_scope_counts_what_runs_while_it_is_open(raising_cpu):
    @seeded(1029)
    def steps():
        for _ in range(2):
            yield pool(images())

    with seeded(1) as outer:
        pool(images())
        with seeded(2) as inner:
            pool(images())
        assert inner.replaced == {AVERAGE: 1}
        thread = threading.Thread(target=pool, args=[images()])
        thread.start()
        thread.join()
        list(steps())
    assert outer.replaced == {AVERAGE: 5}
    assert inner.replaced == {AVERAGE: 1}


def test_tasks_that_take_turns_count_their_own_calls(raising_cpu):
    counts = {}

    async def run(name: str, calls: int) -> None:
        scopes = []

        @seeded(1029, threads="wait")
        async def steps() -> None:
            from seedscope import current_scope

            scopes.append(current_scope())
            for _ in range(calls):
                pool(images())
                await asyncio.sleep(0)

        await steps()
        counts[name] = scopes[0].replaced

    async def both() -> None:
        await asyncio.gather(run("a", 2), run("b", 3))

    asyncio.run(both())
    assert counts == {"a": {AVERAGE: 2}, "b": {AVERAGE: 3}}


def test_a_backward_in_another_thread_is_replaced(raising_cpu):
    x = images()
    expected = pool(x).clone()
    with seeded(1029) as scope:
        loss = F.adaptive_avg_pool2d(x, (4, 2)).pow(2).sum()
        x.grad = None
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
        assert scope.replaced == {AVERAGE: 1}
    torch.testing.assert_close(x.grad, expected)


def test_an_operation_in_place_returns_its_tensor_also_one_with_strides():
    memory = torch.zeros(4, 6)
    values = memory[:, ::2]
    with seeded(1029) as scope:
        assert values.put_(torch.tensor([0, 5, -1, 5]), torch.arange(1.0, 5)) is values
        assert scope.replaced == {PUT: 1}
    assert values.flatten().tolist() == [1, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 3]
    assert memory[:, 1::2].count_nonzero() == 0


def test_an_out_argument_is_written_and_resized(raising_cpu):
    gradient, size = torch.arange(6.0)[None, None], [[6], [1, 1, 3], False]
    operation = torch.ops.aten.upsample_linear1d_backward
    expected = operation(gradient, *size)
    for out in (torch.empty(0), torch.empty(1, 1, 3), torch.empty(1, 1, 6)[..., ::2]):
        with seeded(1029) as scope:
            assert operation.grad_input(gradient, *size, grad_input=out) is out
            assert scope.replaced == {"aten::upsample_linear1d_backward": 1}
        torch.testing.assert_close(out, expected)
    loss, total = torch.empty(0), torch.empty(0)
    log_probs = torch.arange(18.0).view(1, 2, 3, 3).log_softmax(1)
    inputs = log_probs, torch.zeros(1, 3, 3).long(), None, 1, -100
    with seeded(1029):
        found = torch.ops.aten.nll_loss2d_forward.output(*inputs, output=loss, total_weight=total)
    assert [*map(id, found)] == [id(loss), id(total)]
    assert total.item() == 9


def test_an_operation_that_writes_before_it_raises_is_not_tried():
    """`scatter_reduce_` may have written half of its result when its kernel raises."""
    operation, calls = "aten::scatter_reduce_.two", []
    native = torch.library.get_kernel(operation, "CPU").call_boxed

    def half(keyset, values, *args, **kwargs):
        calls.append(torch.get_deterministic_debug_mode())
        if calls[-1] == 2:
            values.fill_(-1)
            raise RuntimeError("scatter_reduce_ does not have a deterministic implementation")
        return native(keyset, values, *args, **kwargs)

    library = torch.library.Library("aten", "IMPL")
    library.impl(operation, half, "CPU", with_keyset=True, allow_override=True)
    before = dict(registry._added)
    try:

        @register_replacement(operation, device="cpu")
        def scatter_reduce(values, dim, index, src, reduce, *, include_self=True):
            return values.scatter_reduce(dim, index, src, reduce, include_self=include_self)

        values, index = torch.tensor([1.0, 2.0]), torch.tensor([0, 0])
        with seeded(1029) as scope:
            values.scatter_reduce_(0, index, torch.tensor([5.0, 7.0]), "amax")
            assert scope.replaced == {operation: 1}
        assert values.tolist() == [7, 2]
        assert 2 not in calls
    finally:
        replacements.remove()
        registry._added.clear()
        registry._added.update(before)
        del library
