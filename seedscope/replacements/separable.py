"""The transpose of a linear map that treats each axis by itself, such as an interpolation.

The map of one axis is read off the operation's own forward kernel: what it makes of each unit
vector is a row of the matrix. So scales, aligned corners and antialiasing come out right without
a formula of their own. In the transposed map each input collects from a few outputs, its taps, one
after another: the order is always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .agreement import accumulation

#: Maps rows of length n to rows of length m, each by itself: [rows, n] -> [rows, m].
Forward = Callable[..., Tensor]

_LARGEST_CHUNK = 2**24  # elements of the identity's image at a time
_KEPT_BYTES = 64 * 2**20


class Taps(NamedTuple):
    """Where each input of one axis has an effect, and with which weight.

    Attributes:
        places: the outputs that an input has an effect on, of shape [taps, inputs].
        weights: their weights, of the same shape; zero where an input has fewer taps.
        is_partial: for each tap, whether some inputs do not have it.
        is_plain: whether all weights are 1.
        is_identity: whether each input has an effect on the output at its own place alone.
    """

    places: Tensor
    weights: Tensor
    is_partial: list[bool]
    is_plain: bool
    is_identity: bool

    @property
    def bytes(self) -> int:
        return self.places.nbytes + self.weights.nbytes


class Axis(NamedTuple):
    """One axis of a map: its forward, its lengths, and the forward's options."""

    forward: Forward
    inputs: int
    outputs: int
    options: tuple[Any, ...] = ()


_tables: dict[Any, Taps] = {}  # the one that was used last is the last
_captured: list[Taps] = []  # those whose memory a CUDA graph reads at each replay


def transpose(gradient: Tensor, axes: Sequence[Axis], *, is_absolute: bool = False) -> Tensor:
    """Return the transposed map of a gradient, in the type in which its sums are made.

    The result may be the gradient itself, or have its memory.

    Waits for the device when it meets a size for the first time, to read how many taps there are.

    Args:
        gradient: of shape [..., *outputs of the axes].
        axes: the last dimensions of `gradient`.
        is_absolute: whether to take the absolute values of the weights.

    Raises:
        RuntimeError: a size is met for the first time while a CUDA graph is captured.
    """
    dtype = accumulation(gradient.dtype)
    total = gradient.to(dtype)
    if gradient.numel() == 0:
        kept = gradient.shape[: gradient.dim() - len(axes)]
        return total.new_zeros([*kept, *(axis.inputs for axis in axes)])
    places = range(-len(axes), 0)
    # The axis that shrinks most comes first, which leaves less for the others.
    for dim, axis in sorted(zip(places, axes, strict=True), key=lambda one: _growth(one[1])):
        total = _collect(total, dim, _taps(axis, dtype, gradient.device), is_absolute)
    return total


def most_terms(axes: Sequence[Axis], like: Tensor) -> int:
    """Return the number of terms in the longest sum."""
    count = 1
    for axis in axes:
        count *= len(_taps(axis, accumulation(like.dtype), like.device).is_partial)
    return count


def _growth(axis: Axis) -> float:
    return axis.inputs / max(axis.outputs, 1)


def _collect(values: Tensor, dim: int, taps: Taps, is_absolute: bool) -> Tensor:
    """Return for each input of an axis the weighted sum of the outputs that it has an effect on."""
    if taps.is_identity:
        return values
    shape = [*values.shape]
    shape[dim] = taps.places.shape[1]
    total = None
    line = [1] * values.dim()
    line[dim] = -1
    for places, weights, is_partial in zip(taps.places, taps.weights, taps.is_partial, strict=True):
        term = values.index_select(dim, places)
        weights = weights.view(line)
        if not taps.is_plain:
            term *= weights.abs() if is_absolute else weights
        if is_partial:
            term.masked_fill_(weights == 0, 0)  # also where infinity times 0 gave NaN
        total = term if total is None else total.add_(term)
    return values.new_zeros(shape) if total is None else total


def _taps(axis: Axis, dtype: torch.dtype, device: torch.device) -> Taps:
    key = axis, dtype, device
    found = _tables.pop(key, None)
    is_captured = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    if found is None:
        if is_captured:
            raise RuntimeError(
                f"sizes {axis.inputs} and {axis.outputs} are met for the first time while a CUDA "
                "graph is captured: run the step once before the capture"
            )
        found = _read(axis, dtype, device)
    if is_captured and not any(found is one for one in _captured):
        _captured.append(found)
    _tables[key] = found
    _drop_the_oldest()
    return found


def _drop_the_oldest() -> None:
    """Keep the tables below a bound, also while other threads add some."""
    kept = [*_tables.items()]
    size = sum(taps.bytes for _, taps in kept)
    for key, taps in kept[:-1]:
        if size <= _KEPT_BYTES:
            return
        if taps.places.is_cuda:
            # Kernels on other streams may still read it.
            torch.cuda.synchronize(taps.places.device)
        _tables.pop(key, None)
        size -= taps.bytes


def _read(axis: Axis, dtype: torch.dtype, device: torch.device) -> Taps:
    """Return the taps of an axis, read off what its forward makes of the unit vectors."""
    chunk = max(1, _LARGEST_CHUNK // max(axis.outputs, 1))
    found, lengths = [], []
    for start in range(0, axis.inputs, chunk):
        end = min(start + chunk, axis.inputs)
        units = torch.zeros(end - start, axis.inputs, dtype=dtype, device=device)
        units.diagonal(start).fill_(1)
        image = axis.forward(units, axis.outputs, *axis.options)
        rows, outputs = image.nonzero(as_tuple=True)
        found.append((rows + start, outputs, image[rows, outputs]))
        lengths.append((image != 0).sum(1))
    rows, outputs, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
    counts = torch.cat(lengths)
    first = counts.cumsum(0) - counts
    number = torch.arange(len(rows), device=device) - first[rows]  # which tap of its input
    shape = [int(counts.max()), axis.inputs]
    places = torch.zeros(shape, dtype=torch.long, device=device)
    table = torch.zeros(shape, dtype=dtype, device=device)
    places[number, rows] = outputs
    table[number, rows] = weights
    # The last reads wait until the table is whole: other streams may use it next.
    is_partial = (table == 0).any(1).tolist()
    is_plain = bool(((table == 0) | (table == 1)).all())
    order = torch.arange(axis.inputs, device=device)
    is_identity = is_plain and axis.inputs == axis.outputs and torch.equal(places, order[None])
    return Taps(places, table, is_partial, is_plain, is_identity)
