"""Calls of the operations that have a replacement, as Hypothesis strategies.

A strategy draws the arguments in float64, from a seed of its own: `in_dtype` converts them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st

aten = torch.ops.aten
Args = list[Any]
Draw = Callable[..., Any]


def numbers(draw: Draw, *shape: int) -> torch.Tensor:
    """Return normal numbers in one of the memory formats that an input can have."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    layout = draw(st.sampled_from(["contiguous", "channels last", "strided", "expanded"]))
    if layout == "channels last" and values.dim() in (4, 5):
        last = torch.channels_last if values.dim() == 4 else torch.channels_last_3d
        return values.contiguous(memory_format=last)
    if layout == "strided":
        return torch.stack([values, values], -1)[..., 0]
    if layout == "expanded":
        return values[:1].expand(values.shape)
    return values


def sizes(draw: Draw, count: int, low: int = 1, high: int = 9) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(count)]


def upsampling(name: str, dims: int) -> st.SearchStrategy[Args]:
    @st.composite
    def call(draw: Draw) -> Args:
        batch, inputs, outputs = sizes(draw, 2, high=3), sizes(draw, dims), sizes(draw, dims)
        options = [draw(st.none() | st.floats(0.3, 4)) for _ in range(dims)]
        # As `interpolate` does.
        outputs = [
            max(1, int(a * scale)) if scale else b
            for a, b, scale in zip(inputs, outputs, options, strict=True)
        ]
        if name.endswith("_aa"):
            # torch's CPU forward copies an axis whose size stays, and its backward does not.
            both = zip(inputs, outputs, options, strict=True)
            options = [None if a == b else scale for a, b, scale in both]
        is_aligned = draw(st.booleans())
        return [numbers(draw, *batch, *outputs), outputs, [*batch, *inputs], is_aligned, *options]

    return call()


def adaptive_average(dims: int) -> st.SearchStrategy[Args]:
    @st.composite
    def call(draw: Draw) -> Args:
        batch = sizes(draw, draw(st.integers(1, 2)), high=3)
        inputs, outputs = sizes(draw, dims), sizes(draw, dims)
        return [numbers(draw, *batch, *outputs), numbers(draw, *batch, *inputs)]

    return call()


@st.composite
def average_windows(draw: Draw) -> Args:
    kernel, stride = sizes(draw, 3, high=3), sizes(draw, 3, high=3)
    padding = [draw(st.integers(0, size // 2)) for size in kernel]
    inputs = numbers(draw, 2, 3, *sizes(draw, 3, low=3))
    divisor = draw(st.none() | st.integers(-5, 5).filter(bool))
    options = [kernel, stride, padding, draw(st.booleans()), draw(st.booleans()), divisor]
    outputs = aten.avg_pool3d(inputs, *options)
    return [numbers(draw, *outputs.shape), inputs, *options]


@st.composite
def max_windows(draw: Draw) -> Args:
    kernel, stride, dilation = (sizes(draw, 3, high=3) for _ in range(3))
    padding = [draw(st.integers(0, size // 2)) for size in kernel]
    inputs = numbers(draw, 2, 3, *sizes(draw, 3, low=7))
    options = [kernel, stride, padding, dilation, draw(st.booleans())]
    outputs, indices = aten.max_pool3d_with_indices(inputs, *options)
    return [numbers(draw, *outputs.shape), inputs, *options, indices]


def adaptive_max(dims: int) -> st.SearchStrategy[Args]:
    @st.composite
    def call(draw: Draw) -> Args:
        batch = sizes(draw, draw(st.integers(1, 2)), high=3)
        inputs = numbers(draw, *batch, *sizes(draw, dims))
        outputs, indices = getattr(aten, f"adaptive_max_pool{dims}d")(inputs, sizes(draw, dims))
        return [numbers(draw, *outputs.shape), inputs, indices]

    return call()


def fractional_max(dims: int) -> st.SearchStrategy[Args]:
    @st.composite
    def call(draw: Draw) -> Args:
        inputs = numbers(draw, 2, 3, *sizes(draw, dims, low=5))
        outputs = sizes(draw, dims, high=4)
        samples = torch.full((2, 3, dims), draw(st.floats(0, 0.99)), dtype=torch.float64)
        pool = getattr(aten, f"fractional_max_pool{dims}d")
        found, indices = pool(inputs, [2] * dims, outputs, samples)
        return [numbers(draw, *found.shape), inputs, [2] * dims, outputs, indices]

    return call()


def padding(dims: int, longest: Callable[[int], int]) -> st.SearchStrategy[Args]:
    """Return calls of a padding's gradient; a margin is at most `longest` of its axis's size."""

    @st.composite
    def call(draw: Draw) -> Args:
        batch = sizes(draw, draw(st.integers(1, 2)), high=3)
        inputs = numbers(draw, *batch, *sizes(draw, dims, low=2))
        margins: list[int] = []
        for size in reversed(inputs.shape[-dims:]):
            low = draw(st.integers(-(size - 1), longest(size)))
            high = draw(st.integers(max(-(size - 1), 1 - size - low), longest(size)))
            margins += [low, high]
        shape = list(inputs.shape)
        for axis in range(dims):
            shape[-1 - axis] += margins[2 * axis] + margins[2 * axis + 1]
        return [numbers(draw, *shape), inputs, margins]

    return call()


@st.composite
def image_loss(draw: Draw) -> Args:
    classes, height, width = sizes(draw, 3, low=2)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    target = torch.randint(0, classes, (2, height, width), generator=generator)
    ignored = draw(st.sampled_from([-100, 1]))
    target[0, 0] = ignored
    weight = draw(st.none() | st.just(numbers(draw, classes).abs() + 0.1))
    inputs = numbers(draw, 2, classes, height, width)
    return [inputs.log_softmax(1), target, weight, draw(st.integers(0, 2)), ignored]


def grid(dims: int) -> st.SearchStrategy[Args]:
    @st.composite
    def call(draw: Draw) -> Args:
        inputs = numbers(draw, 2, 3, *sizes(draw, dims, high=6))
        points = sizes(draw, dims, high=5)
        where = numbers(draw, 2, *points, dims) * draw(st.sampled_from([0.5, 1.3, 4]))
        mode = draw(st.integers(0, 2 if dims == 2 else 1))
        wanted = draw(st.sampled_from([[True, True], [True, False], [False, True]]))
        options = [mode, draw(st.integers(0, 2)), draw(st.booleans()), wanted]
        return [numbers(draw, 2, 3, *points), inputs, where, *options]

    return call()


@st.composite
def ctc(draw: Draw) -> Args:
    times, batch, classes, longest = draw(
        st.tuples(*map(st.integers, *zip(*[(1, 20), (1, 4), (2, 6), (0, 6)], strict=True)))
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    blank = draw(st.integers(0, classes - 1))
    labels = torch.randint(0, classes - 1, (batch, longest), generator=generator)
    labels[labels >= blank] += 1
    lengths = [draw(st.integers(0, longest)) for _ in range(batch)]
    input_lengths = [draw(st.integers(1, times)) for _ in range(batch)]
    if draw(st.booleans()):
        labels = torch.cat([row[:length] for row, length in zip(labels, lengths, strict=True)])
    log_probs = numbers(draw, times, batch, classes).log_softmax(2)
    # Without an alignment the loss is infinite, and torch's gradient NaN unless it is set to zero.
    loss, alpha = aten._ctc_loss(log_probs, labels, input_lengths, lengths, blank, True)
    given = numbers(draw, batch)
    return [given, log_probs, labels, input_lengths, lengths, loss, alpha, blank, True]


@st.composite
def put(draw: Draw) -> Args:
    values = numbers(draw, *sizes(draw, 2, high=4))
    count = values.numel()
    index = draw(st.lists(st.integers(-count, count - 1), max_size=8))
    return [
        values,
        torch.tensor(index, dtype=torch.long),
        numbers(draw, len(index)),
        draw(st.booleans()),
    ]


def unpooling(dims: int) -> st.SearchStrategy[Args]:
    @st.composite
    def call(draw: Draw) -> Args:
        outputs = sizes(draw, dims, low=2, high=6)
        inputs = numbers(draw, 2, 3, *sizes(draw, dims, high=3))
        size = int(torch.tensor(outputs).prod())
        generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
        indices = torch.randint(0, size, inputs.shape, generator=generator)
        more = [[1] * dims, [0] * dims] if dims == 3 else []
        return [inputs, indices, outputs, *more]

    return call()


CALLS: dict[str, st.SearchStrategy[Args]] = {
    **{
        f"aten::{name}_backward": upsampling(name, dims)
        for name, dims in [
            ("upsample_linear1d", 1),
            ("upsample_bilinear2d", 2),
            ("upsample_trilinear3d", 3),
            ("upsample_bicubic2d", 2),
            ("_upsample_bilinear2d_aa", 2),
            ("_upsample_bicubic2d_aa", 2),
        ]
    },
    "aten::_adaptive_avg_pool2d_backward": adaptive_average(2),
    "aten::_adaptive_avg_pool3d_backward": adaptive_average(3),
    "aten::avg_pool3d_backward": average_windows(),
    "aten::max_pool3d_with_indices_backward": max_windows(),
    "aten::adaptive_max_pool2d_backward": adaptive_max(2),
    "aten::adaptive_max_pool3d_backward": adaptive_max(3),
    "aten::fractional_max_pool2d_backward": fractional_max(2),
    "aten::fractional_max_pool3d_backward": fractional_max(3),
    **{
        f"aten::{name}_pad{dims}d_backward": padding(dims, longest)
        for name, longest in [("reflection", lambda size: size - 1), ("replication", lambda _: 5)]
        for dims in (1, 2, 3)
    },
    "aten::nll_loss2d_forward": image_loss(),
    "aten::grid_sampler_2d_backward": grid(2),
    "aten::grid_sampler_3d_backward": grid(3),
    "aten::_ctc_loss_backward": ctc(),
    "aten::put_": put(),
    "aten::max_unpool2d": unpooling(2),
    "aten::max_unpool3d": unpooling(3),
}


def in_dtype(args: Args, dtype: torch.dtype) -> Args:
    """Return the arguments with their floating numbers in another type, and the same strides."""
    return [
        value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in args
    ]
