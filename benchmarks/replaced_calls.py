"""Calls of the operations that have a replacement, with inputs of a usual size or small ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from seedscope.replacements.built_in import BUILT_IN
from seedscope.replacements.registry import Replacement, exists, overload_of, written

Args = list[Any]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SEED = 1029
_aten = torch.ops.aten


@dataclass(frozen=True)
class Call:
    """A call of an operation that has a replacement.

    Attributes:
        replacement: the replacement.
        make: returns the arguments, on the CPU and in float32.
        what: what tells the call from others of the operation.
        dtypes: the names of the types that the operation has kernels for.
    """

    replacement: Replacement
    make: Callable[[Inputs], Args]
    what: str = ""
    dtypes: Sequence[str] = tuple(DTYPES)

    @property
    def name(self) -> str:
        name = self.replacement.operation.removeprefix("aten::").removeprefix("_")
        return name.removesuffix("_backward") + (f" {self.what}" if self.what else "")

    @property
    def operation(self) -> Callable[..., Any]:
        return overload_of(self.replacement.operation)  # type: ignore[no-any-return]

    def arguments(self, device: str, dtype: str, small: bool) -> Args:
        """Return the arguments, which are the same each time."""
        return [_moved(x, device, DTYPES[dtype]) for x in self.make(Inputs(small))]

    def unchanged(self, function: Callable[..., Any], arguments: Args) -> Callable[[], Any]:
        """Return a call of `function` that leaves the arguments as they are."""
        places = written(self.replacement.operation)

        def call() -> Any:
            kept = [x.clone() if i in places else x for i, x in enumerate(arguments)]
            return function(*kept)

        return call


def _moved(value: Any, device: str, dtype: torch.dtype) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype if value.is_floating_point() else value.dtype)


class Inputs:
    """Makes inputs on the CPU, from a generator of its own."""

    def __init__(self, small: bool) -> None:
        self.small = small
        self._generator = torch.Generator().manual_seed(_SEED)

    def either(self, usual: Sequence[int], small: Sequence[int]) -> list[int]:
        """Return the usual size or the small one."""
        return [*(small if self.small else usual)]

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator)

    def rand(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self._generator)

    def below(self, limit: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, limit, shape, generator=self._generator)

    def maps(self, dims: int) -> torch.Tensor:
        """Return the features of a late layer of VGG-16, or of a video."""
        usual = {2: (16, 512, 14, 14), 3: (2, 32, 16, 32, 32)}[dims]
        return self.randn(*self.either(usual, (2, 3, 9, 8, 7)[: 2 + dims]))

    def pooled(self, dims: int) -> list[int]:
        """Return the size to which an adaptive pooling brings the features."""
        return self.either({2: (7, 7), 3: (4, 8, 8)}[dims], (4, 3, 2)[:dims])


def _adaptive_average(t: Inputs, dims: int) -> Args:
    inputs = t.maps(dims)
    return [t.randn(*inputs.shape[:2], *t.pooled(dims)), inputs]


def _average_windows(t: Inputs) -> Args:
    inputs, options = t.maps(3), [[3] * 3, [2] * 3, [1] * 3, False, True, None]
    return [t.randn(*_aten.avg_pool3d(inputs, *options).shape), inputs, *options]


def _upsampling(t: Inputs, usual: Sequence[Sequence[int]]) -> Args:
    """Return the arguments of an interpolation from the first of two shapes to the second."""
    dims = len(usual[0]) - 2
    inputs = t.either(usual[0], (2, 3, 5, 4, 3)[: 2 + dims])
    outputs = t.either(usual[1], (9, 8, 7)[:dims])
    return [t.randn(*inputs[:2], *outputs), outputs, inputs, False, *[None] * dims]


def _max_windows(t: Inputs) -> Args:
    inputs, options = t.maps(3), [[3] * 3, [2] * 3, [1] * 3, [1] * 3, False]
    outputs, indices = _aten.max_pool3d_with_indices(inputs, *options)
    return [t.randn(*outputs.shape), inputs, *options, indices]


def _adaptive_max(t: Inputs, dims: int) -> Args:
    inputs = t.maps(dims)
    pool = getattr(_aten, f"adaptive_max_pool{dims}d")
    outputs, indices = pool(inputs, t.pooled(dims))
    return [t.randn(*outputs.shape), inputs, indices]


def _fractional_max(t: Inputs, dims: int) -> Args:
    inputs = t.maps(dims)
    kernel, sizes = [2] * dims, [int(size * 0.7) for size in inputs.shape[2:]]
    pool = getattr(_aten, f"fractional_max_pool{dims}d")
    outputs, indices = pool(inputs, kernel, sizes, t.rand(*inputs.shape[:2], dims))
    return [t.randn(*outputs.shape), inputs, kernel, sizes, indices]


def _padding(t: Inputs, dims: int) -> Args:
    usual = {1: (8, 1, 160_000), 2: (4, 64, 128, 128), 3: (2, 32, 16, 32, 32)}[dims]
    inputs = t.randn(*t.either(usual, (2, 3, 9, 8, 7)[: 2 + dims]))
    margin = 200 if dims == 1 and not t.small else 2  # as of a spectrum of 400 samples
    padded = [*inputs.shape[:2], *(size + 2 * margin for size in inputs.shape[2:])]
    return [t.randn(*padded), inputs, [margin] * 2 * dims]


def _image_loss(t: Inputs) -> Args:
    shape = t.either((4, 21, 256, 256), (2, 5, 8, 6))
    target = t.below(shape[1], shape[0], *shape[2:])
    ignored = 255
    target[:, 0] = ignored  # as the border of an object
    return [t.randn(*shape).log_softmax(1), target, None, 1, ignored]


def _grid(t: Inputs, dims: int) -> Args:
    usual = {2: (2, 32, 64, 64), 3: (2, 32, 16, 32, 32)}[dims]
    inputs = t.randn(*t.either(usual, (2, 3, 6, 5, 4)[: 2 + dims]))
    grid = 2.2 * t.rand(len(inputs), *inputs.shape[2:], dims) - 1.1
    return [t.randn(*inputs.shape), inputs, grid, 0, 0, False, [True, True]]


def _ctc(t: Inputs) -> Args:
    times, batch, classes, longest = t.either((256, 16, 80, 40), (20, 3, 6, 5))
    log_probs = t.randn(times, batch, classes).log_softmax(2)
    targets = 1 + t.below(classes - 1, batch, longest)
    lengths = [times - i for i in range(batch)], [longest - i % 3 for i in range(batch)]
    loss, log_alpha = _aten._ctc_loss(log_probs, targets, *lengths)
    # Torch leaves what is beyond the lengths undefined.
    ends = [torch.tensor(one)[:, None, None] for one in lengths]
    is_known = torch.arange(log_alpha.shape[2]) < 2 * ends[1] + 1
    is_known = is_known & (torch.arange(times)[:, None] < ends[0])
    log_alpha = torch.where(is_known, log_alpha, -torch.inf)
    return [t.randn(batch), log_probs, targets, *lengths, loss, log_alpha, 0, False]


def _put(t: Inputs, is_sum: bool) -> Args:
    [count] = t.either([2**20], [50])
    return [t.randn(count), t.below(count, count), t.randn(count), is_sum]


def _unpool(t: Inputs, dims: int) -> Args:
    usual = {2: (4, 64, 112, 112), 3: (2, 32, 16, 32, 32)}[dims]
    inputs = t.randn(*t.either(usual, (2, 3, 8, 6, 4)[: 2 + dims]))
    maxima, indices = getattr(_aten, f"max_pool{dims}d_with_indices")(inputs, [2] * dims)
    windows = [[2] * 3, [0] * 3] if dims == 3 else []
    return [maxima, indices, [*inputs.shape[2:]], *windows]


_SOUND = (8, 64, 4000), (8000,)
_LOGITS = (4, 21, 32, 32), (256, 256)
_VIDEO = (2, 32, 8, 16, 16), (16, 32, 32)
_SMALLER = (8, 3, 256, 256), (128, 128)

#: By the name of an operation; a second element tells two calls of one apart.
_MAKERS: dict[str, dict[str, Callable[[Inputs], Args]]] = {
    "_adaptive_avg_pool2d_backward": {"": partial(_adaptive_average, dims=2)},
    "_adaptive_avg_pool3d_backward": {"": partial(_adaptive_average, dims=3)},
    "avg_pool3d_backward": {"": _average_windows},
    "upsample_linear1d_backward": {"": partial(_upsampling, usual=_SOUND)},
    "upsample_bilinear2d_backward": {"": partial(_upsampling, usual=_LOGITS)},
    "upsample_trilinear3d_backward": {"": partial(_upsampling, usual=_VIDEO)},
    "upsample_bicubic2d_backward": {"": partial(_upsampling, usual=_LOGITS)},
    "_upsample_bilinear2d_aa_backward": {"": partial(_upsampling, usual=_SMALLER)},
    "_upsample_bicubic2d_aa_backward": {"": partial(_upsampling, usual=_SMALLER)},
    "max_pool3d_with_indices_backward": {"": _max_windows},
    "adaptive_max_pool2d_backward": {"": partial(_adaptive_max, dims=2)},
    "adaptive_max_pool3d_backward": {"": partial(_adaptive_max, dims=3)},
    "fractional_max_pool2d_backward": {"": partial(_fractional_max, dims=2)},
    "fractional_max_pool3d_backward": {"": partial(_fractional_max, dims=3)},
    **{
        f"{kind}_pad{dims}d_backward": {"": partial(_padding, dims=dims)}
        for kind in ("reflection", "replication")
        for dims in (1, 2, 3)
    },
    "nll_loss2d_forward": {"": _image_loss},
    "grid_sampler_2d_backward": {"": partial(_grid, dims=2)},
    "grid_sampler_3d_backward": {"": partial(_grid, dims=3)},
    "_ctc_loss_backward": {"": _ctc},
    "put_": {"": partial(_put, is_sum=False), "accumulate": partial(_put, is_sum=True)},
    "max_unpool2d": {"": partial(_unpool, dims=2)},
    "max_unpool3d": {"": partial(_unpool, dims=3)},
}
_DTYPES = {"_ctc_loss_backward": ("float32",)}  # torch has no 16-bit kernel of it


def calls() -> list[Call]:
    """Return the calls, one or more for each replacement whose operation this torch has."""
    found = []
    for replacement in BUILT_IN:
        name = replacement.operation.removeprefix("aten::")
        if exists(replacement.operation):
            makers = _MAKERS[name]
            dtypes = _DTYPES.get(name, tuple(DTYPES))
            found += [Call(replacement, make, what, dtypes) for what, make in makers.items()]
    return found
