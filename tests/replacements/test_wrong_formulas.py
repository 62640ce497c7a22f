"""A formula that is wrong costs a run, and its error says which operation it is and why."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from seedscope import register_replacement, replacements, seeded
from seedscope.replacements import registry
from seedscope.replacements.built_in import BUILT_IN

UNPOOL = "aten::max_unpool2d"
[BUILT_IN_UNPOOL] = [one for one in BUILT_IN if one.operation == UNPOOL]
VALUES, PLACES = F.max_pool2d(
    torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(7)), 2, return_indices=True
)


@pytest.fixture(autouse=True)
def registered_for_a_test() -> Iterator[None]:
    before = dict(registry._added)
    yield
    replacements.remove()
    registry._added.clear()
    registry._added.update(before)


def unpool(values: torch.Tensor = VALUES, places: torch.Tensor = PLACES) -> torch.Tensor:
    return F.max_unpool2d(values, places, 2)


def right(*args: Any) -> torch.Tensor:
    return BUILT_IN_UNPOOL.function(*args)


def refusal(function: Callable[..., Any]) -> str:
    """Return the note of the error that refuses a function, which is refused the next time too."""
    register_replacement(UNPOOL, device="cpu")(function)
    for _ in range(2):
        with (
            pytest.raises(RuntimeError, match="max_unpooling2d_forward") as raised,
            seeded(1029) as scope,
        ):
            unpool()
        assert scope.replaced == {}
    return "".join(raised.value.__notes__)


def quantized(*args: Any) -> torch.Tensor:
    return torch.quantize_per_tensor(right(*args), 0.1, 0, torch.quint8)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda *args: None, "it returned nothing"),
        (lambda *args: right(*args).half(), r"it returned float16[1, 1, 8, 8]"),
        (lambda *args: right(*args).double(), "it returned float64[1, 1, 8, 8]"),
        (lambda *args: right(*args)[0, 0], "it returned float32[8, 8], and torch's own kernel"),
        (lambda *args: right(*args)[:, :0], "it returned float32[1, 0, 8, 8]"),
        (lambda *args: (right(*args),), "it returned (float32[1, 1, 8, 8])"),
        pytest.param(
            quantized,
            "it returned quint8[1, 1, 8, 8]",
            marks=pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
        ),
        (
            lambda *args: right(*args) + 0.5,
            "by up to 0.5, for inputs of float32[1, 1, 4, 4], int64",
        ),
    ],
)
def test_a_result_of_another_kind_is_refused(function, told):
    assert told in refusal(function)


def clamps(values: torch.Tensor, *args: Any) -> torch.Tensor:
    return right(values.clamp_(max=0.5), *args)


def counts_in_place(values: torch.Tensor, places: torch.Tensor, *args: Any) -> torch.Tensor:
    result = right(values, places, *args)
    places.flatten()[0].add_(1)
    return result


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (clamps, "it changed an argument"),
        (counts_in_place, "it changed an argument"),
    ],
)
def test_a_function_that_changes_an_argument_is_refused(function, told):
    values, places = VALUES.clone(), PLACES.clone()
    assert told in refusal(function)
    assert torch.equal(VALUES, values), "the arguments have their values again"
    assert torch.equal(PLACES, places)


def test_a_function_that_calls_the_operation_itself_is_told_so_once():
    register_replacement(UNPOOL, device="cpu")(lambda *args: torch.ops.aten.max_unpool2d(*args))
    with pytest.raises(RecursionError) as raised, seeded(1029):
        unpool()
    [note] = raised.value.__notes__
    assert "which must not call aten::max_unpool2d. Correct the function" in note


def test_what_agrees_decides_and_raises_is_told_as_such():
    register_replacement(UNPOOL, device="cpu", agrees=lambda *args: False)(right)
    with pytest.raises(RuntimeError) as raised, seeded(1029):
        unpool()
    assert "by more than its `agrees` accepts: by up to 0, for" in raised.value.__notes__[0]
    assert "Its `agrees` decides how much" in raised.value.__notes__[0]
    register_replacement(UNPOOL, device="cpu", agrees=torch.equal)(right)
    with pytest.raises(TypeError) as raised, seeded(1029):
        unpool()
    [note] = raised.value.__notes__
    assert "raised in the `agrees` of the replacement of aten::max_unpool2d" in note


@pytest.mark.filterwarnings("ignore:index_reduce")
def test_a_refused_operation_in_place_leaves_its_tensor_as_it_was():
    name = "aten::index_reduce_"  # the CPU's kernel repeats, and raises nothing
    register_replacement(name, device="cpu")(lambda values, *args, **kwargs: values * 3)
    values, index = torch.ones(4), torch.tensor([1, 1])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="index_reduce_ is refused"), seeded(1029):
            values.index_reduce_(0, index, torch.tensor([2.0, 3.0]), "prod")
        assert values.tolist() == [1, 1, 1, 1]


def test_the_note_of_ones_own_function_names_it():
    def halved(*args: Any) -> torch.Tensor:
        return right(*args) / 2

    note = refusal(halved)
    assert "halved" in note
    assert "Correct the function" in note
    assert "give this one a form" not in note
    assert "register_replacement" in note
    assert "Please report" not in note


def test_an_error_of_a_function_names_the_operation():
    register_replacement(UNPOOL, device="cpu")(lambda values: values)
    with pytest.raises(TypeError, match="positional argument") as raised, seeded(1029) as scope:
        unpool()
    [note] = raised.value.__notes__
    assert "raised in the replacement of aten::max_unpool2d, where torch's own kernel" in note
    assert scope.replaced == {}


@pytest.mark.parametrize("place", [99, -1])
def test_an_index_outside_of_its_plane_raises_torchs_own_error(place):
    places = PLACES.clone()
    places[0, 0, 0, 0] = place
    with pytest.raises(RuntimeError) as native:
        unpool(places=places)
    for _ in range(2):
        with pytest.raises(RuntimeError) as raised, seeded(1029) as scope:
            unpool(places=places)
        assert str(raised.value) == str(native.value)
        assert scope.replaced == {}
    with seeded(1029) as scope:
        assert torch.equal(unpool(), right(VALUES, PLACES, (8, 8)))
        assert scope.replaced == {UNPOOL: 1}


def test_another_error_of_torchs_kernel_is_raised_as_it_is():
    """The formula does not run where torch's kernel raises for another reason than its alert."""
    calls: list[Any] = []

    @torch.library.custom_op("test_wrong_formulas::fragile", mutates_args=())
    def fragile(values: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("another reason")

    register_replacement("test_wrong_formulas::fragile", device="cpu")(calls.append)
    with pytest.raises(RuntimeError, match="another reason"), seeded(1029) as scope:
        fragile(VALUES)
    assert scope.replaced == {}
    assert not calls


def test_torchs_kernel_of_an_operation_that_is_not_known_is_tried_each_time():
    """Which arguments decide is not known, so that what one call has shown says nothing."""

    @torch.library.custom_op("test_wrong_formulas::picky", mutates_args=())
    def picky(values: torch.Tensor, size: int) -> torch.Tensor:
        if size > 1 and torch.are_deterministic_algorithms_enabled():
            if not torch.is_deterministic_algorithms_warn_only_enabled():
                raise RuntimeError("picky does not have a deterministic implementation")
            warnings.warn("picky does not have a deterministic implementation", stacklevel=1)
        return values * size

    register_replacement("test_wrong_formulas::picky", device="cpu")(lambda x, size: x * size)
    with seeded(1029) as scope:
        for size in (2, 1, 3):
            assert torch.equal(picky(VALUES, size), VALUES * size)
        assert scope.replaced == {"test_wrong_formulas::picky": 2}
