"""A replacement proves itself before its results count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from seedscope import RunLog, register_replacement, replacements, seeded
from seedscope.replacements import registry
from seedscope.replacements.built_in import BUILT_IN
from stand_ins import cpu_that_raises

PUT = "aten::put_"
[AVERAGE] = [one for one in BUILT_IN if one.operation == "aten::_adaptive_avg_pool2d_backward"]


def pool(values: torch.Tensor, scale: float = 1) -> torch.Tensor:
    values.grad = None
    (F.adaptive_avg_pool2d(values, (4, 2)).pow(2).sum() * scale).backward()
    return values.grad


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(2, 3, 9, 9, generator=generator).to(dtype).requires_grad_()


def averaging(function: Any) -> Any:
    """Return a context in which `function` is the replacement of the average pool's gradient."""
    return cpu_that_raises((AVERAGE._replace(function=function),))


def test_a_wrong_result_is_refused_each_time_and_the_log_keeps_it(tmp_path):
    log = tmp_path / "runs.jsonl"
    with averaging(lambda *args: AVERAGE.function(*args) * 1.001):
        for _ in range(2):
            with (
                pytest.raises(RuntimeError, match="adaptive_avg_pool2d_backward_cuda") as raised,
                seeded(1029, log=log) as scope,
            ):
                pool(images())
            notes = "".join(raised.value.__notes__)
            assert "was refused here: its result differs from that of torch's own kernel" in notes
            assert "on this device it did not" not in notes
            assert scope.replaced == {}
    assert [dict(run.replaced) for run in RunLog(log)] == [
        {AVERAGE.operation: "version 1, refused"}
    ] * 2


def test_a_result_that_does_not_repeat_is_refused():
    calls = []

    def drifting(*args: Any) -> torch.Tensor:
        calls.append(0)
        result = AVERAGE.function(*args)
        result.view(-1)[0] *= 1 + len(calls) * torch.finfo(result.dtype).eps
        return result

    with (
        averaging(drifting),
        pytest.raises(RuntimeError) as raised,
        seeded(1029),
    ):
        pool(images())
    assert "gave other bits when it ran again" in "".join(raised.value.__notes__)


def test_a_kernel_that_does_not_tell_is_replaced_without_a_try():
    operation = "aten::adaptive_max_pool3d_backward"
    [silent] = [one for one in BUILT_IN if one.operation == operation]
    x = torch.randn(1, 1, 5, 5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def backward() -> None:
        F.adaptive_max_pool3d(x, 3).pow(2).sum().backward()

    with cpu_that_raises((silent,)) as calls, seeded(1029) as scope:
        backward()
        backward()
        assert len(calls) == 1  # beside which it has proved itself
        assert scope.replaced == {operation: 2}
    wrong = silent._replace(function=lambda *args: silent.function(*args) + 1)
    with (
        cpu_that_raises((wrong,)),
        pytest.raises(RuntimeError, match=f"{operation} does not have a deterministic"),
        seeded(1029),
    ):
        backward()


def test_an_error_of_a_replacement_is_the_users_error():
    def broken(*args: Any) -> torch.Tensor:
        raise ZeroDivisionError("a fault of the formula")

    with averaging(broken), pytest.raises(ZeroDivisionError), seeded(1029):
        pool(images())


@pytest.mark.parametrize("scale", [0, float("nan"), float("inf")])
def test_a_gradient_that_can_show_nothing_counts_as_unproved(scale, raising_cpu):
    with seeded(1029) as scope:
        pool(images(torch.float64), scale)
        assert scope.replaced == {f"{AVERAGE.operation} (unproved)": 1}
    with cpu_that_raises((AVERAGE,)), seeded(1029) as scope:
        pool(images(), scale)
        pool(images())
        pool(images(), scale)  # proved by now
        assert scope.replaced == {
            AVERAGE.operation: 2,
            f"{AVERAGE.operation} (unproved)": 1,
        }


def test_short_memory_leaves_a_replacement_unproved_and_it_is_not_tried_again():
    calls = []

    def large(*args: Any) -> torch.Tensor:
        calls.append(0)
        if len(calls) == 2:
            raise torch.OutOfMemoryError
        return AVERAGE.function(*args)

    with averaging(large), seeded(1029) as scope:
        for _ in range(3):
            pool(images())
    assert scope.replaced == {f"{AVERAGE.operation} (unproved)": 3}
    assert len(calls) == 4


def test_sixteen_bits_are_compared_with_torch_in_float32(native_calls):
    with cpu_that_raises((AVERAGE,)) as calls, seeded(1029) as scope:
        pool(images(torch.bfloat16))
        assert scope.replaced == {AVERAGE.operation: 1}
        assert len(calls) == 2
    error = 1 + 3 * torch.finfo(torch.bfloat16).eps
    with (
        averaging(lambda *args: AVERAGE.function(*args) * error),
        pytest.raises(RuntimeError, match="deterministic"),
        seeded(1029),
    ):
        pool(images(torch.bfloat16))


def test_any_of_several_writers_passes_and_no_other_value():
    values, index = torch.zeros(4), torch.tensor([1, 1, 3])
    source = torch.tensor([5.0, 6.0, 7.0])
    before = dict(registry._added)

    def register(result: list[float]) -> None:
        @register_replacement(PUT, device="cpu", agrees=put.agrees)
        def chosen(values, index, source, accumulate=False):
            return torch.tensor(result)

        registry.add(registry._added[PUT, "cpu"]._replace(is_known=True, carriers=(2,)))
        replacements.remove()

    [put] = [one for one in BUILT_IN if one.operation == PUT]
    try:
        for right in ([0.0, 5, 0, 7], [0.0, 6, 0, 7]):
            register(right)
            with seeded(1029) as scope:
                assert values.clone().put_(index, source).tolist() == right
                assert scope.replaced == {PUT: 1}
        for wrong in ([0.0, 7, 0, 7], [1.0, 5, 0, 7], [0.0, 5, 0, 0], [0.0, 0, 0, 7]):
            register(wrong)
            with pytest.raises(RuntimeError, match="put_"), seeded(1029):
                values.clone().put_(index, source)
    finally:
        replacements.remove()
        registry._added.clear()
        registry._added.update(before)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"operation": "aten::no_such"}, ValueError),
        ({"operation": "no namespace"}, ValueError),
        ({"operation": "torchvision_::_roi"}, ValueError),
        ({"operation": "aten::scatter_reduce"}, ValueError),
        ({"operation": PUT, "device": "abacus"}, ValueError),
        ({"operation": PUT, "device": "cuda:0"}, ValueError),
        ({"operation": PUT, "device": 3}, ValueError),
        ({"operation": PUT, "version": "2"}, TypeError),
        ({"operation": PUT, "version": True}, TypeError),
    ],
)
def test_a_registration_is_refused_before_anything_changes(arguments, error):
    before = dict(registry._added)
    with pytest.raises(error, match=str(next(reversed(arguments.values())))):
        register_replacement(**arguments)
    assert registry._added == before


def test_a_users_replacement_runs_in_an_open_scope_and_keeps_its_version(tmp_path):
    operation = "aten::_adaptive_avg_pool3d_backward"
    [built_in] = [one for one in BUILT_IN if one.operation == operation]
    x = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with cpu_that_raises((built_in,)), seeded(1029, log=tmp_path / "log") as scope:

        @register_replacement(operation, device="cpu", version=12)
        def backward(gradient, inputs):
            return built_in.function(gradient, inputs)

        F.adaptive_avg_pool3d(x, 3).pow(2).sum().backward()
        assert scope.replaced == {operation: 1}
    assert [dict(run.replaced) for run in RunLog(tmp_path / "log")] == [{operation: "version 12"}]
