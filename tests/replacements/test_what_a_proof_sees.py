"""What a first call has to show before a replacement counts as proved, and for which calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_wrong_formulas import PLACES, UNPOOL, VALUES, registered_for_a_test, right, unpool

from seedscope import register_replacement, replacements, seeded
from seedscope.replacements import registry
from stand_ins import cpu_that_raises

__all__ = ["registered_for_a_test"]  # a fixture of each test

NLL, GRID, CTC = (
    "aten::nll_loss2d_forward",
    "aten::grid_sampler_2d_backward",
    "aten::_ctc_loss_backward",
)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def test_a_loss_of_ignored_classes_alone_proves_nothing():
    scores = normal(1, 3, 4, 4)
    classes = torch.full((1, 4, 4), -100)
    with cpu_that_raises(), seeded(1029) as scope:
        F.cross_entropy(scores, classes, reduction="sum")
        assert scope.replaced == {f"{NLL} (unproved)": 1}
        F.cross_entropy(scores, classes.clamp(min=0), reduction="sum")
        assert scope.replaced == {f"{NLL} (unproved)": 1, NLL: 1}


def test_an_image_of_zeros_proves_nothing_of_its_grid():
    grid = (normal(1, 5, 5, 2) / 2).requires_grad_()

    def sample(images: torch.Tensor) -> None:
        F.grid_sample(images.requires_grad_(), grid, align_corners=False).sum().backward()

    with cpu_that_raises(), seeded(1029) as scope:
        sample(torch.zeros(1, 2, 6, 6))
        assert scope.replaced == {f"{GRID} (unproved)": 1}
        sample(normal(1, 2, 6, 6))
        assert scope.replaced == {f"{GRID} (unproved)": 1, GRID: 1}


def test_a_target_that_has_no_alignment_does_not_refuse_ctc():
    """torch's kernels differ in which classes of such a sequence have no gradient."""
    scores = normal(3, 1, 4)

    def gradient(labels: list[int]) -> torch.Tensor:
        given = scores.clone().requires_grad_()
        lengths = torch.tensor([3]), torch.tensor([len(labels)])
        F.ctc_loss(given.log_softmax(2), torch.tensor([labels]), *lengths).backward()
        return given.grad

    native = gradient([1, 2])
    with cpu_that_raises(), seeded(1029) as scope:
        assert gradient([1, 1, 1]).isnan().any()
        torch.testing.assert_close(gradient([1, 2]), native)
        assert scope.replaced == {CTC: 2}


def test_each_number_that_ones_own_function_gets_is_proved():
    def sums_wrongly(scores: torch.Tensor, classes: torch.Tensor, *options: Any) -> Any:
        wrong = 1.5 if options[1] == 2 else 1
        with torch.no_grad():
            picked = -scores.gather(1, classes[:, None]).sum()
        size = torch.tensor(float(classes.numel()))
        return (picked * wrong if options[1] == 2 else picked / size), size

    scores, classes = normal(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    with cpu_that_raises():
        before = registry._added[NLL, "cpu"]
        register_replacement(NLL, device="cpu")(sums_wrongly)
        with seeded(1029) as scope:
            F.nll_loss(scores, classes)
            assert scope.replaced == {NLL: 1}
            with pytest.raises(RuntimeError, match="nll_loss2d"):
                F.nll_loss(scores, classes, reduction="sum")
        registry.add(before)


def test_the_proof_of_a_function_says_nothing_of_the_next_one():
    def replaced_meanwhile(*args: Any) -> bool:
        register_replacement(UNPOOL, device="cpu")(lambda *args: right(*args) + 1)
        return True

    register_replacement(UNPOOL, device="cpu", agrees=replaced_meanwhile)(right)
    with seeded(1029) as scope:
        unpool()
        assert scope.replaced == {UNPOOL: 1}
        with pytest.raises(RuntimeError, match="max_unpooling2d"):
            unpool()


@pytest.mark.parametrize(
    "error",
    [RuntimeError("DefaultCPUAllocator: not enough memory"), torch.OutOfMemoryError("short")],
)
def test_a_call_runs_unproved_where_the_memory_is_short_for_the_proof(error):
    calls: list[int] = []

    def once(*args: Any) -> torch.Tensor:
        calls.append(0)
        if len(calls) == 2:
            raise error
        return right(*args)

    register_replacement(UNPOOL, device="cpu")(once)
    with seeded(1029) as scope:
        assert torch.equal(unpool(), right(VALUES, PLACES, (8, 8)))
        assert scope.replaced == {f"{UNPOOL} (unproved)": 1}


def test_a_subclass_of_a_tensor_is_not_asked():
    """torch's own kernels do not ask it either."""

    class Refusing(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function in (F.max_unpool2d, torch.Tensor.as_subclass):
                with torch._C.DisableTorchFunctionSubclass():
                    return function(*args, **kwargs or {})
            raise NotImplementedError(function)

    with torch._C.DisableTorchFunctionSubclass():
        values = VALUES.as_subclass(Refusing)
    with seeded(1029) as scope:
        found = unpool(values)
        assert scope.replaced == {UNPOOL: 1}
    with torch._C.DisableTorchFunctionSubclass():
        assert torch.equal(found.as_subclass(torch.Tensor), right(VALUES, PLACES, (8, 8)))


def test_a_tensor_whose_elements_share_memory_is_not_written():
    values = torch.zeros(6)
    with seeded(1029), pytest.raises(RuntimeError, match="share memory"):
        values.unfold(0, 3, 1).put_(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))
    assert values.tolist() == [0] * 6


def test_strides_of_zero_are_refused_also_after_the_proof():
    values, places = F.max_pool3d(normal(1, 1, 4, 4, 4), 2, return_indices=True)
    with seeded(1029) as scope:
        F.max_unpool3d(values, places, 2)
        with pytest.raises(RuntimeError, match="strides"):
            F.max_unpool3d(values, places, 2, stride=0)
        assert scope.replaced == {"aten::max_unpool3d": 1}
    replacements.remove()
