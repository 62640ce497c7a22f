"""What a first call has to show before a replacement counts as proved, and for which calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_wrong_formulas import PLACES, UNPOOL, VALUES, registered_for_a_test, right, unpool

from seedscope import register_replacement, replacements, seeded
from seedscope.replacements import kernels, registry
from seedscope.replacements.built_in import BUILT_IN
from seedscope.replacements.registry import overload_of
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


def test_a_call_runs_unproved_where_the_memory_is_short_for_copies(monkeypatch):
    def short(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("short")

    register_replacement(UNPOOL, device="cpu")(right)
    monkeypatch.setattr(torch.Tensor, "clone", short)
    with seeded(1029) as scope:
        with pytest.raises(torch.OutOfMemoryError):
            VALUES.clone()
        unpool()
        assert scope.replaced == {f"{UNPOOL} (unproved)": 1}


def test_a_short_memory_of_the_formula_itself_is_told_as_torch_tells_it():
    def short(*args: Any) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    register_replacement(UNPOOL, device="cpu")(short)
    with pytest.raises(RuntimeError, match="not enough memory") as raised, seeded(1029) as scope:
        unpool()
    assert not getattr(raised.value, "__notes__", [])
    assert scope.replaced == {}


def test_the_verdicts_of_a_function_that_gets_many_numbers_are_bounded(monkeypatch):
    monkeypatch.setattr(kernels, "_MOST", 3)
    calls: list[int] = []

    def counted(*args: Any) -> torch.Tensor:
        calls.append(0)
        return right(*args)

    register_replacement(UNPOOL, device="cpu")(counted)
    with seeded(1029):
        for size in range(8, 18):
            torch.ops.aten.max_unpool2d(VALUES, PLACES, [size, 8])
    [found] = kernels._kernels[UNPOOL].values()
    assert 0 < len(found._formula[1]) <= 3
    assert len(calls) == 3 * 10  # each size is proved


def test_a_tensor_of_another_kind_than_the_devices_plain_ones_is_left_to_torch():
    name, calls = "test_what_a_proof_sees::first", []

    def raising(values: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("first does not have a deterministic implementation")

    with torch.library._scoped_library(name.partition("::")[0], "DEF") as library:
        library.define("first(Tensor values) -> Tensor")
        library.impl("first", torch.clone, "CPU")
        library.impl("first", raising, "SparseCPU")
        register_replacement(name, device="cpu")(calls.append)
        with seeded(1029) as scope:
            torch.ops.test_what_a_proof_sees.first(VALUES)
            with pytest.raises(RuntimeError, match="first does not have"):
                torch.ops.test_what_a_proof_sees.first(VALUES[0, 0].to_sparse())
            assert scope.replaced == {}
        replacements.remove()
        del registry._added[name, "cpu"]
    assert not calls


def test_a_subclass_of_a_tensor_is_not_asked_in_a_backward():
    """torch's own kernels do not ask it either."""
    asked: list[Any] = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            asked.append(function)
            return super().__torch_function__(function, types, args, kwargs)

    images = normal(1, 2, 6, 6).as_subclass(Watched).requires_grad_()
    grid = normal(1, 5, 5, 2) / 2
    with cpu_that_raises(), seeded(1029) as scope:
        loss = F.grid_sample(images, grid, align_corners=False).sum().as_subclass(torch.Tensor)
        asked.clear()
        loss.backward()
        assert scope.replaced == {GRID: 1}
        assert all(function.__name__ == "__get__" for function in asked)  # of `grad`, as in torch


def test_a_jump_of_a_grids_gradient_along_one_axis_loosens_no_other():
    """Two of the axes have one element, on which each point lies."""
    one = next(one for one in BUILT_IN if one.operation == "aten::grid_sampler_3d_backward")
    gradient, images = normal(2, 3, 1, 1, 1), normal(2, 3, 1, 1, 2)
    grid = torch.tensor([0.77, -0.15, -1.09, 0.28, 0.38, -0.7]).view(2, 1, 1, 1, 3)
    options = images, grid, 0, 0, True, [False, True]
    native = overload_of(one.operation)(gradient, *options)
    assert one.agrees(one.function(gradient, *options), native, gradient, *options)
    wrong = one.function(gradient * 1.05, *options)
    assert not one.agrees(wrong, native, gradient, *options)


def test_a_tensor_whose_elements_share_memory_is_not_written():
    values = torch.zeros(6)
    with seeded(1029) as scope:
        with pytest.raises(RuntimeError, match="share memory"):
            values.unfold(0, 3, 1).put_(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))
        assert scope.replaced == {}
    assert values.tolist() == [0] * 6


def test_strides_that_interleave_without_meeting_are_written():
    strided, memory = (2, 3), torch.zeros(8)
    with seeded(1029) as scope:
        memory.as_strided(strided, (3, 2)).put_(torch.tensor([1, 5]), torch.tensor([7.0, 8.0]))
        assert scope.replaced == {"aten::put_": 1}
    assert memory.as_strided(strided, (3, 2)).flatten().tolist() == [0, 7, 0, 0, 0, 8]


def test_strides_of_zero_are_refused_also_after_the_proof():
    values, places = F.max_pool3d(normal(1, 1, 4, 4, 4), 2, return_indices=True)
    with seeded(1029) as scope:
        F.max_unpool3d(values, places, 2)
        with pytest.raises(RuntimeError, match="strides"):
            F.max_unpool3d(values, places, 2, stride=0)
        assert scope.replaced == {"aten::max_unpool3d": 1}
    replacements.remove()
