"""Digests of tensors of every kind: of the bits, the dtype and the shape, not of the strides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..support.digests import bytes_of, is_plain, word_sum
from ..support.memory import map_at

#: Classes of values that are compared as they are.
VALUES = (bool, int, float, complex, str, bytes, type(None))
#: Classes of tensors that stand for others.
WITHOUT_CONTENT = ("FakeTensor", "FunctionalTensor")
_PIECE = 2**21  # bytes that one thread hashes at a time
_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


class Digest(NamedTuple):
    """The digest of a tensor: 64 bits, or a sum on the device and the hash of the form."""

    value: int | Tensor
    form: int = 0


def digests(tensor: Tensor, pool: Executor | None = None) -> list[Digest]:
    """Return a digest for each part of `tensor`; none if its content cannot be read.

    On the host it is the beginning of a SHA-1, the fastest of hashlib; threads of `pool` hash the
    pieces of a large tensor. On a device it is a sum of all words, each mixed with its position:
    the sum needs no copy to the host and no synchronisation.
    """
    found = []
    for part in parts(tensor):
        form = f"{part.dtype}{part.shape}{tensor.layout}".encode()
        if not _has_its_memory(part):
            return []
        content = _memory_of(part) if part.device.type == "cpu" else bytes_of(part)
        if isinstance(content, Tensor):
            found.append(Digest(word_sum(content), _hash(form)))
        else:
            found.append(Digest(_hash(form, content, pool)))
    return found


def digest_of(values: list[Any]) -> tuple[int, ...]:
    """Return the digests of tensors and of other values, read from their devices."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            for one in digests(value):
                number = one.value if isinstance(one.value, int) else int(one.value.item())
                found.append(number ^ one.form)
        elif isinstance(value, (bool, int, float, complex, str)):
            found.append(text_digest(repr(value)))
    return tuple(found)


def has_content(tensor: Tensor) -> bool:
    """Return whether a tensor has content: a meta tensor, a fake and a lazy one have none."""
    stands_for = type(tensor).__name__ in WITHOUT_CONTENT
    return not (stands_for or is_lazy(tensor) or tensor.device.type == "meta")


def is_lazy(tensor: Tensor) -> bool:
    """Return whether a parameter or buffer of a lazy module has no memory yet."""
    return isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer))


def has_own_dispatch(kind: type) -> bool:
    """Return whether a class of tensors handles the operations on it by itself."""
    own: Any = getattr(kind, "__torch_dispatch__", None)
    return own is not torch._C._disabled_torch_dispatch_impl


def array_digest(array: Any) -> bytes:
    """Return the digest of a NumPy array or number, which holds no Python objects."""
    sha = hashlib.sha1(f"{array.dtype}{array.shape}".encode(), usedforsecurity=False)
    sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.digest()


def text_digest(text: str) -> int:
    return _hash(text.encode(errors="surrogatepass"))


def parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors that make up `tensor`; none of one that has no content of its own."""
    if type(tensor) in (Tensor, nn.Parameter) and is_plain(tensor):
        if tensor.device.type != "meta":
            yield tensor
        return
    if not has_content(tensor):
        return
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from parts(getattr(tensor, name))
    elif has_own_dispatch(type(tensor)):
        return
    elif is_plain(tensor):
        yield tensor
    elif tensor.is_quantized:
        yield from (tensor.int_repr(), *_scales(tensor))
    else:
        yield from _parts_by_layout(tensor)


def _parts_by_layout(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.layout in _COMPRESSED:
        first, second = _COMPRESSED[tensor.layout]
        return getattr(tensor, first)(), getattr(tensor, second)(), tensor.values()
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.is_nested:
        return tensor._nested_tensor_size(), tensor.values()
    return (tensor.to_dense(),) if tensor.is_mkldnn else ()


def _scales(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
        return tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    values = [tensor.q_scale(), float(tensor.q_zero_point())]
    return (torch.tensor(values, dtype=torch.float64, device="cpu"),)


def _hash(form: bytes, content: Any = b"", pool: Executor | None = None) -> int:
    sha = hashlib.sha1(form, usedforsecurity=False)
    if len(content) <= _PIECE:
        sha.update(content)
    else:
        pieces = [content[at : at + _PIECE] for at in range(0, len(content), _PIECE)]
        for digest in map(_digest, pieces) if pool is None else pool.map(_digest, pieces):
            sha.update(digest)
    return int.from_bytes(sha.digest()[:8], "little")


def _memory_of(tensor: Tensor) -> Any:
    """Return the bytes of a tensor on the host, without a copy where they lie in order.

    `tensor.numpy()` would forbid the program to resize the tensor later.
    """
    if tensor._is_zerotensor():  # of forward-mode derivatives: it has no memory
        tensor = torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        tensor = bytes_of(tensor)
    return map_at(tensor, tensor.data_ptr(), tensor.nbytes) if tensor.nbytes else b""


def _has_its_memory(tensor: Tensor) -> bool:
    """Return whether the memory of a tensor is there: FSDP frees that of its parameters."""
    if not tensor.numel() or tensor._is_zerotensor():
        return True
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * stride for size, stride in steps)
    return (last + 1) * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _digest(piece: Any) -> bytes:
    return hashlib.sha1(piece, usedforsecurity=False).digest()  # other threads run meanwhile
