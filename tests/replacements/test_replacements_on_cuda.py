"""Replacements on a real GPU: what torch refuses there runs, repeats, and is proved.

These tests need torch and pytest, and no extra. Gradients are taken in a process of their own:
torch refuses them on a GPU once the fake device is registered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.replaced_calls import Call, calls
from helpers import run_python
from seedscope import seeded
from seedscope.replacements import remove
from seedscope.replacements.agreement import same_bits, tensors
from seedscope.replacements.gate import is_alert
from seedscope.replacements.kernels import IS_SUPPORTED

pytestmark = pytest.mark.cuda

DEVICE = "cuda"
ALL = [
    pytest.param(one, dtype, id=f"{one.name}, {dtype}") for one in calls() for dtype in one.dtypes
]
#: Those that read nothing back, so that a CUDA graph can hold them.
CAPTURED = (
    "adaptive_avg_pool2d",
    "upsample_bicubic2d",
    "adaptive_max_pool2d",
    "reflection_pad1d",
    "nll_loss2d_forward",
    "grid_sampler_2d",
    "put_",
    "max_unpool2d",
)
captured = pytest.mark.parametrize(
    "call", [one for one in calls() if one.name in CAPTURED], ids=lambda call: call.name
)


@pytest.fixture(autouse=True)
def torch_has_what_replacements_need():
    if not IS_SUPPORTED:
        pytest.skip("replacements need torch 2.9")


def made(call: Call, dtype: str = "float32", small: bool = True) -> Callable[[], Any]:
    return call.unchanged(call.operation, call.arguments(DEVICE, dtype, small))


def alike(result: Any, expected: Any) -> bool:
    return all(map(same_bits, tensors(result), tensors(expected)))


def torch_raises(run: Callable[[], Any]) -> bool:
    """Return whether torch's own kernel raises in a strict block; skip if there is none."""
    with seeded(1029, replacements=False):
        try:
            run()
        except NotImplementedError:
            pytest.skip("torch has no such kernel for this device")
        except RuntimeError as error:
            if not is_alert(error):
                raise
            return True
    return False


@pytest.mark.parametrize(("call", "dtype"), ALL)
def test_thirty_runs_give_one_result_and_the_replacement_is_proved(call, dtype):
    run = made(call, dtype, small=dtype != "float32")  # in the usual size once: that takes longer
    expected = {call.replacement.operation: 30} if torch_raises(run) else {}
    with seeded(1029) as scope:
        first = run()
        assert all(alike(run(), first) for _ in range(29))
    assert scope.replaced == expected
    assert all(one.device.type == DEVICE for one in tensors(first))


@pytest.mark.parametrize("call", [one for one in calls() if not one.what], ids=lambda one: one.name)
def test_autocast_changes_no_bit_of_a_replacement(call):
    run = made(call)
    if not torch_raises(run):
        return
    with seeded(1029) as scope:
        expected = run()
        with torch.autocast(DEVICE, torch.bfloat16):
            assert alike(run(), expected)
    assert scope.replaced == {call.replacement.operation: 2}


@captured
def test_a_first_use_while_a_graph_is_captured_is_refused_and_later_the_graph_repeats(call):
    run, arguments = made(call), call.arguments(DEVICE, "float32", small=True)
    if not torch_raises(run):
        return
    with seeded(1029, replacements=False):
        call.replacement.function(*arguments)  # loads the GPU's code, which no capture may do
    remove()  # forgets the proofs
    with seeded(1029) as scope:
        refused = []
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            try:
                run()
            except RuntimeError as error:
                refused.append(str(error))
        assert "while a CUDA graph is captured" in refused[0]
        assert scope.replaced == {}
        expected, graph = run(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run()
        for _ in range(3):
            for one in tensors(result):
                one.zero_()
            graph.replay()
            assert alike(result, expected)
    assert scope.replaced == {call.replacement.operation: 2}


def test_a_size_that_is_new_while_a_graph_is_captured_is_refused():
    pool, refused = torch.ops.aten._adaptive_avg_pool2d_backward, []
    gradient, inputs = (torch.ones(1, 1, size, size, device=DEVICE) for size in (11, 127))
    with seeded(1029):
        made(next(one for one in calls() if one.name == "adaptive_avg_pool2d"))()
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            try:
                pool(gradient, inputs)
            except RuntimeError as error:
                refused.append(str(error))
        assert "met for the first time while a CUDA graph is captured" in refused[0]
        assert torch.equal(pool(gradient, inputs), pool(gradient, inputs))


GRADIENTS = """
import torch
import torch.nn.functional as F
from seedscope import seeded
from seedscope.replacements.gate import is_alert

values = torch.Generator().manual_seed(1029)

def randn(*shape):
    return torch.randn(shape, generator=values)

assert not torch.cuda.is_initialized()
with seeded(1029) as scope:  # a device that is first used inside
    maxima = torch.arange(4.0, device="cuda").view(1, 1, 2, 2)
    places = torch.tensor([[[[0, 3], [8, 11]]]], device="cuda")
    torch.ops.aten.max_unpool2d(maxima, places, [4, 4])
assert scope.replaced == {"aten::max_unpool2d": 1}, scope.replaced

grid, classes = 1.2 * randn(2, 9, 7, 2), torch.randint(0, 5, (2, 12, 10), generator=values)
labels = torch.randint(1, 6, (3, 4), generator=values)
lengths = torch.full((3,), 15), torch.full((3,), 4)

def unpooled(x):
    return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)

STEPS = {
    "aten::_adaptive_avg_pool2d_backward": (lambda x: F.adaptive_avg_pool2d(x, (7, 5)), 4),
    "aten::upsample_bicubic2d_backward": (
        lambda x: F.interpolate(x, (25, 23), mode="bicubic", align_corners=False), 4
    ),
    "aten::grid_sampler_2d_backward": (
        lambda x: F.grid_sample(x, grid.to(x.device), align_corners=False), 4
    ),
    "aten::_ctc_loss_backward": (
        lambda x: F.ctc_loss(x.log_softmax(2), labels.to(x.device), *lengths), 3
    ),
    "aten::nll_loss2d_forward": (lambda x: F.cross_entropy(x, classes.to(x.device)), 4),
    "aten::reflection_pad1d_backward": (lambda x: F.pad(x, (5, 3), mode="reflect"), 3),
    "aten::max_pool3d_with_indices_backward": (lambda x: F.max_pool3d(x, 3, 2, 1), 5),
    "aten::max_unpool2d": (unpooled, 4),
}
SHAPES = {3: (15, 3, 6), 4: (2, 5, 12, 10), 5: (2, 3, 9, 8, 7)}

def gradient(function, x):
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    weight = torch.linspace(-1, 1, y.numel(), device=x.device, dtype=y.dtype).view(y.shape)
    return torch.autograd.grad(y, leaf, weight)[0]

def torch_raises(function, x):
    with seeded(1029, replacements=False):
        try:
            gradient(function, x)
        except RuntimeError as error:
            if not is_alert(error):
                raise
            return True
    return False

for operation, (function, dims) in STEPS.items():
    x = randn(*SHAPES[dims])
    expected, on_gpu = gradient(function, x), x.to("cuda")
    with seeded(1029) as scope:
        found = [gradient(function, on_gpu) for _ in range(5)]
    assert all(torch.equal(one, found[0]) for one in found), operation
    replaced = {operation: 5} if torch_raises(function, on_gpu) else {}
    assert scope.replaced == replaced, (operation, scope.replaced)
    torch.testing.assert_close(found[0].cpu(), expected, rtol=1e-3, atol=1e-4)

def network(x):
    # Under autocast: a convolution in bfloat16, a pyramid that is enlarged, the loss of images.
    with torch.autocast("cuda", torch.bfloat16):
        maps = F.conv2d(x, weight)
        pooled = F.adaptive_avg_pool2d(maps, 3)
        return F.cross_entropy(F.interpolate(pooled, (12, 10), mode="bicubic"), classes.to("cuda"))

weight = randn(5, 5, 3, 3).to("cuda")
images = randn(*SHAPES[4]).to("cuda")
with seeded(1029) as scope:
    found = [gradient(network, images) for _ in range(5)]
assert all(torch.equal(one, found[0]) for one in found)
assert found[0].isfinite().all() and found[0].any()
assert not any("unproved" in name for name in scope.replaced), scope.replaced
"""


def test_gradients_repeat_on_a_device_that_is_first_used_inside():
    run_python(GRADIENTS)
