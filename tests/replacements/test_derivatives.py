"""Derivatives, transforms and compilers over replaced operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

from seedscope import seeded

AVERAGE = "aten::_adaptive_avg_pool2d_backward"


def numbers(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def stft(x: torch.Tensor) -> torch.Tensor:
    window = torch.ones(8, dtype=torch.float64)
    return torch.view_as_real(torch.stft(x, 8, 4, window=window, return_complex=True))


def fractional(x: torch.Tensor) -> torch.Tensor:
    samples = torch.full((1, 2, 2), 0.4, dtype=torch.float64)
    return F.fractional_max_pool2d(x, 2, output_size=3, _random_samples=samples)


def unpooled(x: torch.Tensor) -> torch.Tensor:
    return F.max_unpool2d(x, torch.tensor([[[[0, 3], [9, 14]]]]), 2)


def ctc(x: torch.Tensor) -> torch.Tensor:
    targets = torch.tensor([[1, 2, 2], [3, 1, 0]])
    lengths = torch.tensor([7, 6]), torch.tensor([3, 2])
    return F.ctc_loss(x.log_softmax(2), targets, *lengths)


def image_loss(x: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(x, torch.tensor([[[0, 1], [2, -100]]]))


def put(x: torch.Tensor) -> torch.Tensor:
    return (x * 1).put(torch.tensor([0, 3]), x.flatten()[:2] * 2)


def interpolated(mode: str, **options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: F.interpolate(x, mode=mode, **options)


def padded(mode: str, *margins: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: F.pad(x, margins, mode=mode)


# The function, its input's shape, the operation that is replaced, and whether torch has a second
# derivative.
CASES: dict[str, tuple[Callable[..., torch.Tensor], list[int], str, bool]] = {
    "adaptive average 2d": (
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        [1, 2, 5, 4],
        AVERAGE,
        True,
    ),
    "adaptive average 3d": (
        lambda x: F.adaptive_avg_pool3d(x, (2, 3, 2)),
        [1, 1, 3, 5, 4],
        "aten::_adaptive_avg_pool3d_backward",
        True,
    ),
    "average 3d": (
        lambda x: F.avg_pool3d(x, 2, 2, 1),
        [1, 1, 4, 4, 4],
        "aten::avg_pool3d_backward",
        True,
    ),
    "linear": (
        interpolated("linear", scale_factor=2),
        [1, 2, 3],
        "aten::upsample_linear1d_backward",
        True,
    ),
    "bilinear": (
        interpolated("bilinear", size=(5, 7)),
        [1, 2, 3, 4],
        "aten::upsample_bilinear2d_backward",
        True,
    ),
    "bicubic": (
        interpolated("bicubic", size=(5, 7), align_corners=True),
        [1, 1, 3, 4],
        "aten::upsample_bicubic2d_backward",
        True,
    ),
    "antialiased": (
        interpolated("bicubic", size=(2, 3), antialias=True),
        [1, 1, 6, 7],
        "aten::_upsample_bicubic2d_aa_backward",
        False,
    ),
    "trilinear": (
        interpolated("trilinear", scale_factor=2),
        [1, 1, 2, 3, 2],
        "aten::upsample_trilinear3d_backward",
        True,
    ),
    "area": (interpolated("area", size=(2, 3)), [1, 1, 6, 7], AVERAGE, True),
    "reflection 1d": (
        padded("reflect", 2, 1),
        [1, 2, 4],
        "aten::reflection_pad1d_backward",
        True,
    ),
    "reflection 3d": (
        padded("reflect", 1, 1, 1, 1, 1, 1),
        [1, 1, 3, 3, 3],
        "aten::reflection_pad3d_backward",
        True,
    ),
    "replication 2d": (
        padded("replicate", 2, 1, -1, 2),
        [1, 2, 4, 4],
        "aten::replication_pad2d_backward",
        True,
    ),
    "stft": (stft, [2, 16], "aten::reflection_pad1d_backward", True),
    "max 3d": (
        lambda x: F.max_pool3d(x, 2, 1),
        [1, 1, 3, 3, 3],
        "aten::max_pool3d_with_indices_backward",
        True,
    ),
    "adaptive max 2d": (
        lambda x: F.adaptive_max_pool2d(x, 3),
        [1, 2, 5, 4],
        "aten::adaptive_max_pool2d_backward",
        True,
    ),
    "fractional max": (fractional, [1, 2, 6, 6], "aten::fractional_max_pool2d_backward", True),
    "unpooling": (unpooled, [1, 1, 2, 2], "aten::max_unpool2d", True),
    "cross entropy of images": (image_loss, [1, 3, 2, 2], "aten::nll_loss2d_forward", True),
    "ctc": (ctc, [7, 2, 4], "aten::_ctc_loss_backward", False),
    "put": (put, [2, 3], "aten::put_", True),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_finite_differences(name, raising_cpu):
    function, shape, operation, has_second = CASES[name]
    x = numbers(*shape)
    with seeded(1029) as scope:
        assert gradcheck(function, (x,))
        if has_second:
            assert gradgradcheck(function, (x,))
        assert scope.replaced.get(operation, 0) + scope.replaced.get(f"{operation} (unproved)", 0)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_derivatives_of_a_grid_are_those_of_finite_differences(mode, padding, raising_cpu):
    def sample(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(images, grid, mode, padding, align_corners=False)

    grid = (numbers(1, 3, 3, 2).detach() * 0.7).requires_grad_()
    with seeded(1029) as scope:
        assert gradcheck(sample, (numbers(1, 2, 4, 5), grid))
        assert scope.replaced["aten::grid_sampler_2d_backward"]


def pooled(x: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(x, (3, 2)).pow(2).sum()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_transforms_of_functions_are_replaced(raising_cpu):
    batch = numbers(3, 2, 5, 4).detach()
    transforms = {
        "vmap of grad": torch.func.vmap(torch.func.grad(pooled)),
        "hessian": lambda x: torch.func.hessian(pooled)(x[0]),
        "jacrev": torch.func.jacrev(lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
    }
    for name, transform in transforms.items():
        expected = transform(batch)
        with seeded(1029) as scope:
            torch.testing.assert_close(transform(batch), expected, msg=name)
            assert sum(scope.replaced.values()), name


def test_shapes_without_values_are_found_as_before(raising_cpu):
    with seeded(1029) as scope, FakeTensorMode():
        gradient = torch.ops.aten._adaptive_avg_pool2d_backward(
            torch.empty(1, 1, 2, 2), torch.empty(1, 1, 4, 4)
        )
        assert gradient.shape == (1, 1, 4, 4)
        assert scope.replaced == {}


def test_autocast_is_off_inside_a_replacement(raising_cpu):
    x = numbers(2, 3, 9, 9).detach().float().requires_grad_()
    pooled(x).backward()
    expected, x.grad = x.grad, None
    with seeded(1029) as scope, torch.autocast("cpu", torch.bfloat16):
        pooled(x).backward()
        assert sum(scope.replaced.values()) == 1
    torch.testing.assert_close(x.grad, expected, rtol=1e-6, atol=1e-6)


def test_autocast_is_off_by_the_public_way_too(monkeypatch):
    from seedscope.support import torch_internals

    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16), torch_internals.without_autocast("cpu"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        monkeypatch.setattr(torch_internals, "_exclude", None)


@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],
)
def test_a_compiled_function_is_replaced(backend, raising_cpu):
    x = numbers(1, 2, 7, 5)
    pooled(x).backward()
    expected, x.grad = x.grad, None
    torch._dynamo.reset()
    with seeded(1029) as scope:
        torch.compile(pooled, backend=backend)(x).backward()
        assert scope.replaced == {AVERAGE: 1}
    torch.testing.assert_close(x.grad, expected)
    torch._dynamo.reset()
