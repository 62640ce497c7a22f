"""Each formula beside torch's own CPU kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from calls import CALLS, in_dtype
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from seedscope import seeded
from seedscope.replacements.agreement import same_bits, tensors
from seedscope.replacements.built_in import BUILT_IN
from seedscope.replacements.registry import Replacement, exists, overload_of, written

OPERATIONS = [one for one in BUILT_IN if exists(one.operation)]
each_operation = pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: one.operation[6:])

# Where several values go to one place, or a maximum is taken, the bits decide: no rounding.
EXACT = ("put_", "max_unpool")
some = settings(
    max_examples=15, deadline=None, suppress_health_check=[*HealthCheck], derandomize=True
)


def native(one: Replacement, args: list[Any]) -> Any:
    args = list(args)
    for place in written(one.operation):
        args[place] = args[place].clone()
    return overload_of(one.operation)(*args)


def replaced(one: Replacement, args: list[Any]) -> Any:
    with seeded(1, replacements=False):
        return one.function(*args)


def drawn(one: Replacement, data: st.DataObject) -> list[Any]:
    try:
        args = data.draw(CALLS[one.operation])
        native(one, args)
    except RuntimeError:  # no call of the operation, such as a window that is too large
        assume(False)
    is_antialiased = "_aa_" in one.operation
    # With a scale for the same size, torch's forward on the CPU copies, and its gradient does not.
    assume(not (is_antialiased and any(a == b for a, b in zip(args[1], args[2][2:], strict=True))))
    return args


def error(found: Any, truth: Any) -> float:
    """Return the largest difference, relative to the largest value."""
    worst = 0.0
    for ours, true in zip(tensors(found), tensors(truth), strict=True):
        if true.numel():
            assert torch.equal(ours.isnan(), true.isnan())
            largest = true.abs().nan_to_num().max().clamp(min=1e-30)
            difference = ((ours.double() - true) / largest).abs().nan_to_num()
            worst = max(worst, difference.max().item())
    return worst


def wanted(one: Replacement, args: list[Any], result: Any) -> Any:
    """Return the results that the call has asked for: torch returns one more."""
    if "grid_sampler" not in one.operation:
        return result
    return [each for each, is_wanted in zip(result, args[-1], strict=True) if is_wanted]


def test_each_replacement_has_calls_here():
    assert {one.operation for one in BUILT_IN} == set(CALLS)


@each_operation
@some
@given(data=st.data())
def test_a_formula_is_that_of_torch_in_float64(one, data):
    args = drawn(one, data)
    truth = wanted(one, args, native(one, args))
    found = wanted(one, args, replaced(one, args))
    assert [x.shape for x in tensors(found)] == [x.shape for x in tensors(truth)]
    assert {x.dtype for x in tensors(found)} <= {torch.float64}
    assert one.agrees(replaced(one, args), native(one, args), *args)
    if not has_choice(one, args):
        assert error(found, truth) < 1e-12


def has_choice(one: Replacement, args: list[Any]) -> bool:
    """Return whether several values are written to one place, of which any may stay."""
    if not one.operation.removeprefix("aten::").startswith(EXACT):
        return False
    if one.operation == "aten::put_":
        places = args[1].flatten() % max(args[0].numel(), 1)
        return not args[3] and len(places.unique()) < len(places)
    planes = args[1].flatten(0, 1).flatten(1)
    return any(len(plane.unique()) < len(plane) for plane in planes)


@each_operation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@some
@given(data=st.data())
def test_a_formula_is_as_near_to_the_truth_as_torch_in_fewer_bits(one, dtype, data):
    args = in_dtype(drawn(one, data), dtype)
    try:
        theirs = native(one, args)
    except RuntimeError:
        pytest.skip(f"torch's CPU kernel has no {dtype}")
    exact = in_dtype(args, torch.float64)
    truth = wanted(one, args, native(one, exact))
    found = replaced(one, args)
    assert {x.dtype for x in tensors(found)} <= {dtype}
    wide = in_dtype(args, torch.float32) if dtype != torch.float32 else args
    assert one.agrees(found, native(one, wide), *args)
    if not has_choice(one, args):
        # A result is rounded once; two that are as good may round to both sides.
        allowed = error(wanted(one, args, theirs), truth) + torch.finfo(dtype).eps
        ours = error(wanted(one, args, found), truth)
        assert ours <= allowed + 8 * torch.finfo(torch.float32).eps * ctc_factor(one, args)


def ctc_factor(one: Replacement, args: list[Any]) -> float:
    """Return how many times a rounding counts: the logarithms of CTC are as large as its loss."""
    return 1 + args[5].abs().nan_to_num(posinf=0).max().item() if "ctc" in one.operation else 1


@each_operation
@some
@given(data=st.data())
def test_a_formula_gives_the_same_bits_again_and_changes_no_argument(one, data):
    args = in_dtype(drawn(one, data), torch.float32)
    before = [each.clone() if isinstance(each, torch.Tensor) else each for each in args]
    first, again = replaced(one, args), replaced(one, args)
    assert all(map(same_bits, tensors(first), tensors(again)))
    for each, was in zip(args, before, strict=True):
        assert not isinstance(each, torch.Tensor) or same_bits(each, was)


@each_operation
@some
@given(data=st.data())
def test_a_result_has_memory_of_its_own_in_the_format_that_torchs_has(one, data):
    args = drawn(one, data)
    found = wanted(one, args, replaced(one, args))
    given_memory = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
    assert all(
        x.untyped_storage().data_ptr() not in given_memory for x in tensors(found) if x.numel()
    )
    # torch's shape function of max_unpool2d has the format of a GPU.
    device = "cpu" if "cpu" in one.devices else "meta"
    given = [x.clone().to(device) if isinstance(x, torch.Tensor) else x for x in args]
    try:
        expected = wanted(one, args, overload_of(one.operation)(*given))
    except NotImplementedError:
        return  # torch has no shape function
    assert [strides(x) for x in tensors(found)] == [strides(x) for x in tensors(expected)]


def strides(values: torch.Tensor) -> list[int]:
    """Return the strides of the dimensions that have more than one element."""
    sizes = zip(values.stride(), values.shape, strict=True)
    return [stride for stride, size in sizes if size > 1]


@each_operation
def test_a_result_without_elements_has_its_shape(one):
    if one.operation not in EMPTY:
        pytest.skip("torch refuses empty inputs")
    args = EMPTY[one.operation]
    truth = native(one, args)
    assert [x.shape for x in tensors(replaced(one, args))] == [x.shape for x in tensors(truth)]


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


EMPTY: dict[str, list[Any]] = {
    "aten::_adaptive_avg_pool2d_backward": [zeros(0, 3, 2, 2), zeros(0, 3, 4, 4)],
    "aten::_adaptive_avg_pool3d_backward": [zeros(0, 3, 2, 2, 2), zeros(0, 3, 4, 4, 4)],
    "aten::adaptive_max_pool2d_backward": [
        zeros(0, 3, 2, 2),
        zeros(0, 3, 4, 4),
        zeros(0, 3, 2, 2).long(),
    ],
    "aten::upsample_bilinear2d_backward": [zeros(0, 3, 4, 4), [4, 4], [0, 3, 2, 2], False],
    "aten::upsample_bicubic2d_backward": [zeros(0, 3, 4, 4), [4, 4], [0, 3, 2, 2], False],
    "aten::reflection_pad2d_backward": [zeros(0, 3, 4, 4), zeros(0, 3, 2, 2), [1, 1, 1, 1]],
    "aten::replication_pad2d_backward": [zeros(0, 3, 4, 4), zeros(0, 3, 2, 2), [1, 1, 1, 1]],
    "aten::nll_loss2d_forward": [zeros(0, 3, 4, 4), zeros(0, 4, 4).long(), None, 2, -100],
    "aten::grid_sampler_2d_backward": [
        zeros(0, 3, 4, 4),
        zeros(0, 3, 5, 5),
        zeros(0, 4, 4, 2),
        0,
        0,
        False,
        [True, True],
    ],
    "aten::put_": [zeros(0), zeros(0).long(), zeros(0)],
    "aten::max_unpool2d": [zeros(0, 3, 2, 2), zeros(0, 3, 2, 2).long(), [4, 4]],
}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", ["reflection", "replication"])
def test_complex_gradients_keep_both_parts(name, dtype):
    operation = f"aten::{name}_pad1d_backward"
    [one] = [one for one in BUILT_IN if one.operation == operation]
    gradient = torch.complex(torch.arange(9.0), torch.arange(9.0).flip(0)).to(dtype)[None]
    args = [gradient, torch.zeros(1, 5, dtype=dtype), [3, 1]]
    found, truth = replaced(one, args), native(one, args)
    assert found.dtype == dtype
    assert found.imag.any()
    torch.testing.assert_close(found, truth)
    assert one.agrees(found, truth, *args)
    assert not one.agrees(found.conj().resolve_conj(), truth, *args)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.complex64])
@pytest.mark.parametrize("accumulate", [False, True])
def test_other_numbers_are_put_exactly(dtype, accumulate):
    [one] = [one for one in BUILT_IN if one.operation == "aten::put_"]
    values = torch.tensor([[1, 0, 3], [4, 0, 6]]).to(dtype)
    source = torch.tensor([1, 0, 1, 1]).to(dtype)
    args = [values, torch.tensor([0, -1, 3, 3]), source, accumulate]
    assert torch.equal(replaced(one, args), native(one, args))
    assert one.agrees(replaced(one, args), native(one, args), *args)


BAD = {
    "an index out of range": ("aten::put_", [zeros(4), torch.tensor([4]), zeros(1)]),
    "one below the range": ("aten::put_", [zeros(4), torch.tensor([-5]), zeros(1)]),
    "an index of another type": ("aten::put_", [zeros(4), zeros(1).int(), zeros(1)]),
    "a source of another type": ("aten::put_", [zeros(4), zeros(1).long(), zeros(1).double()]),
    "more places than values": ("aten::put_", [zeros(4), zeros(2).long(), zeros(1)]),
    "a tensor without elements": ("aten::put_", [zeros(0), zeros(1).long(), zeros(1)]),
    "an index outside of its plane": (
        "aten::max_unpool2d",
        [zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), 4), [2, 2]],
    ),
    "an index below its plane": (
        "aten::max_unpool2d",
        [zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), -1), [2, 2]],
    ),
    "indices of another shape": (
        "aten::max_unpool2d",
        [zeros(1, 2, 1, 1), zeros(1, 1, 1, 1).long(), [2, 2]],
    ),
    "a size of other dimensions": (
        "aten::max_unpool2d",
        [zeros(1, 2, 1, 1), zeros(1, 2, 1, 1).long(), [2]],
    ),
    "a target of another shape": (
        "aten::nll_loss2d_forward",
        [zeros(1, 3, 2, 2), zeros(1, 1, 2).long(), None, 1, -100],
    ),
    "a weight of another length": (
        "aten::nll_loss2d_forward",
        [zeros(1, 3, 2, 2), zeros(1, 2, 2).long(), zeros(2), 1, -100],
    ),
    "a class that does not exist": (
        "aten::nll_loss2d_forward",
        [zeros(1, 3, 2, 2), zeros(1, 2, 2).long() + 3, None, 1, -100],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_as_by_torch(what):
    """torch's kernels raise their alert before they look at their arguments."""
    operation, args = BAD[what]
    [one] = [one for one in BUILT_IN if one.operation == operation]
    with pytest.raises((RuntimeError, IndexError)):
        native(one, args)
    with pytest.raises((RuntimeError, IndexError)):
        replaced(one, args)


@pytest.mark.parametrize("outputs", [[5, 5], [5, 9], [9, 5]])
@pytest.mark.parametrize("scale", [1.15, 0.9])
@pytest.mark.parametrize("name", ["upsample_bilinear2d", "upsample_bicubic2d"])
def test_an_axis_whose_size_stays_has_the_gradient_of_torch_whatever_the_scale(
    name, scale, outputs
):
    [one] = [one for one in OPERATIONS if one.operation == f"aten::{name}_backward"]
    generator = torch.Generator().manual_seed(7)
    gradient = torch.randn(1, 2, *outputs, dtype=torch.float64, generator=generator)
    args = gradient, outputs, [1, 2, 5, 5], False, scale, scale
    torch.testing.assert_close(
        one.function(*args), overload_of(one.operation)(*args), rtol=1e-12, atol=1e-12
    )
