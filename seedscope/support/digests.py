"""A digest of what a step returns: two that differ in one bit have two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def digest(result: Any) -> str:
    """Return 16 hexadecimal digits that differ as soon as one bit of `result` does.

    Raises:
        TypeError: it holds something whose bits cannot be compared.
    """
    sha = hashlib.sha256()
    _update(sha, result)
    return sha.hexdigest()[:16]


def _update(sha: Any, thing: Any, inside: bool = False) -> None:
    """Add it to the digest, each leaf with its type and length before it."""
    if isinstance(thing, torch.nn.Module):
        # A difference of gradients may be too small to show in the weights.
        thing = [thing.state_dict(), [parameter.grad for parameter in thing.parameters()]]
    elif isinstance(thing, torch.optim.Optimizer):
        thing = thing.state_dict()
    elif isinstance(thing, torch.nn.Parameter) and thing.grad is not None:
        thing = [thing.detach(), thing.grad]
    if isinstance(thing, Mapping):
        thing = [item for pair in thing.items() for item in pair]
    if isinstance(thing, torch.Tensor) and _is_plain(thing):
        thing = thing.detach().resolve_conj().resolve_neg().contiguous()
        sha.update(f"{thing.dtype}{tuple(thing.shape)}".encode())
        flat = thing.reshape(-1).view(torch.uint8)
        sha.update(_sums(flat).numpy() if flat.is_cuda else flat.cpu().numpy())
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
        raise TypeError(f"the step returned {thing!r:.100}: return the model, or tensors")


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether its bits are all that it holds."""
    return tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized


def _sums(flat: torch.Tensor) -> torch.Tensor:
    """Return a few integers, on the CPU, that tell one tensor of bytes from another.

    They are reckoned where the tensor is: to read a network back from a GPU and hash it
    takes longer than its steps. Sums of integers do not depend on their order. Each word
    is mixed with its position first, so that what differs in several words does not cancel
    but by a chance of about 2**-64.
    """
    sums = []
    for piece in torch.split(flat, 2**24):
        words = torch.cat([piece, piece.new_zeros(-len(piece) % 8)]).view(torch.int64)
        position = torch.arange(1, len(words) + 1, device=flat.device)
        sums.append(_mixed(words ^ _mixed(position)).sum())
    return torch.stack(sums).cpu()


def _mixed(words: torch.Tensor) -> torch.Tensor:
    """Return each word through the finaliser of SplitMix64, a bijection.

    See: https://prng.di.unimi.it/splitmix64.c
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        # Signed integers shift their sign in: it is masked away. Products wrap around.
        words = words ^ ((words >> shift) & (2 ** (64 - shift) - 1))
        words = words * (factor - 2**64 if factor >= 2**63 else factor)
    return words
