"""A digest of the result of a step: results that differ in one bit get different digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_PIECE = 2**24  # bytes: the temporary words take a few times this memory


def digest(result: Any) -> str:
    """Return 16 hexadecimal digits that change if any bit of `result` changes.

    Raises:
        TypeError: `result` is None, or holds a value whose bits cannot be compared.
    """
    sha = hashlib.sha256()
    _update(sha, result)
    return sha.hexdigest()[:16]


def _update(sha: Any, thing: Any, inside: bool = False) -> None:
    """Add `thing` to the digest; the type and length of each leaf precede its bits."""
    if isinstance(thing, torch.nn.Module):
        # Gradients can differ by too little to change the weights.
        thing = [thing.state_dict(), [parameter.grad for parameter in thing.parameters()]]
    elif isinstance(thing, torch.optim.Optimizer):
        thing = thing.state_dict()
    elif isinstance(thing, torch.nn.Parameter) and thing.grad is not None:
        thing = [thing.detach(), thing.grad]
    if isinstance(thing, Mapping):
        thing = [item for pair in thing.items() for item in pair]
    if isinstance(thing, torch.Tensor) and is_plain(thing):
        sha.update(f"{thing.dtype}{tuple(thing.shape)}".encode())
        flat = bytes_of(thing)
        sha.update((word_sum(flat).cpu() if flat.is_cuda else flat.cpu()).numpy())
    elif isinstance(thing, (np.ndarray, np.generic)) and not thing.dtype.hasobject:
        sha.update(f"{thing.dtype}{thing.shape}".encode() + thing.tobytes())
    elif isinstance(thing, (list, tuple)):
        sha.update(f"{len(thing)} items".encode())
        for item in thing:
            _update(sha, item, inside=True)
    elif isinstance(thing, (bool, int, float, str)) or (thing is None and inside):
        text = thing.hex() if isinstance(thing, float) else repr(thing)
        sha.update(f"{type(thing).__name__} {len(text)} {text}".encode())
    else:
        raise TypeError(
            f"the step returned {thing!r:.100}, whose bits cannot be compared: "
            "return the model, or tensors"
        )


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether the elements of `tensor` are its whole content."""
    return tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of a plain tensor as a vector of bytes, in the order of the indices.

    The strides make no difference. What is contiguous is not copied.
    """
    return tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def word_sum(flat: torch.Tensor) -> torch.Tensor:
    """Return an integer that identifies a vector of bytes: int64, of shape (), on its device.

    Computed on the tensor's own device: copying a network from a GPU and hashing it takes
    longer than its steps. The order of summation does not affect integer sums. Each word is
    first mixed with its position, so differences in several words cancel with a
    probability of about 2**-64.
    """
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for number, piece in enumerate(torch.split(flat, _PIECE)):
        words = torch.cat([piece, piece.new_zeros(-len(piece) % 8)]).view(torch.int64)
        first = number * (_PIECE // 8) + 1
        position = torch.arange(first, first + len(words), device=flat.device)
        total += _mixed(words ^ _mixed(position)).sum()
    return total


def _mixed(words: torch.Tensor) -> torch.Tensor:
    """Return each word mapped by the finaliser of SplitMix64, a bijection.

    See: https://prng.di.unimi.it/splitmix64.c
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        # A right shift of signed integers copies the sign bit: mask it. Products wrap around.
        words = words ^ ((words >> shift) & (2 ** (64 - shift) - 1))
        words = words * (factor - 2**64 if factor >= 2**63 else factor)
    return words
