"""Digests differ with every bit, and not with the strides; on the host and as sums on a device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedscope.diagnosis import contents
from seedscope.diagnosis.contents import digest_of, digests, parts
from seedscope.support.digests import bytes_of, word_sum

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int32]


def host(tensor):
    return digest_of([tensor])


def device(tensor):
    """The digest as a device makes it, computed on the CPU."""
    return tuple(int(word_sum(bytes_of(part))) for part in parts(tensor))


both_ways = pytest.mark.parametrize("digest", [host, device])


def changes_of(x):
    """Yield copies of `x` that differ from it in ways that sums and norms do not see."""
    flat = x.reshape(-1)
    yield "a permutation", flat.flip(0).reshape(x.shape)
    yield "a swapped pair", flat[[1, 0, *range(2, len(flat))]].reshape(x.shape)
    yield "all signs", -x
    bits = flat.clone().view(torch.uint8)
    size = x.element_size()
    for name, byte, mask in (("last bits", 0, 1), ("top bits", size - 1, 128)):
        for count in (1, 2, 4):
            other = bits.clone()
            other[byte::size][:count] ^= mask
            yield f"{name} of {count}", other.view(x.dtype).reshape(x.shape)


@both_ways
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [8, 1_000, 300_001])
def test_a_digest_sees_what_norms_and_sums_do_not(digest, dtype, size):
    x = (torch.randn(size, generator=torch.Generator().manual_seed(1)) * 100).to(dtype)
    found = {digest(x)}
    changed = [other for _, other in changes_of(x) if not torch.equal(bytes_of(other), bytes_of(x))]
    assert len(changed) >= 8
    found |= {digest(other) for other in changed}
    assert len(found) == 1 + len(changed)


@both_ways
@given(data=st.binary(min_size=1, max_size=200), where=st.integers(0), bit=st.integers(0, 7))
def test_a_digest_differs_with_any_bit(digest, data, where, bit):
    first = torch.tensor(list(data), dtype=torch.uint8)
    second = first.clone()
    second[where % len(data)] ^= 1 << bit
    assert digest(first) != digest(second)
    assert digest(first) == digest(first.clone())


@both_ways
def test_zeros_of_both_signs_and_payloads_of_nan_differ(digest):
    quiet = torch.tensor([0x7FC00000, 0x7FC00001, -0x400000], dtype=torch.int32).view(torch.float32)
    assert quiet.isnan().all()
    found = {digest(torch.tensor([one])) for one in (0.0, -0.0)} | {digest(x) for x in quiet}
    assert len(found) == 5


@both_ways
def test_strides_and_lazy_conjugation_make_no_difference(digest):
    x = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(1))
    assert digest(x) == digest(x.to(memory_format=torch.channels_last))
    assert digest(x.t() if x.dim() == 2 else x.permute(0, 1, 2, 3)) == digest(x)
    z = torch.view_as_complex(x[..., :2].contiguous())
    assert digest(z.conj()) == digest(z.conj().resolve_conj()) != digest(z)


def test_dtype_and_shape_make_a_difference():
    x = torch.zeros(6)
    others = [x, x.view(2, 3), x[:0], x.int(), x[0], x.view(torch.complex64), x.bool()]
    assert len({host(other) for other in others}) == len(others)


def sparse_tensors():
    dense = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    for sparse in ("to_sparse", "to_sparse_csr", "to_sparse_csc"):
        yield getattr(dense, sparse)()
    yield torch.nested.nested_tensor([dense[0], dense[0, :1]])
    yield torch.quantize_per_tensor(dense, 0.1, 3, torch.quint8)
    yield torch.quantize_per_channel(
        dense, torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8
    )
    yield dense.to_mkldnn()


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_every_layout_have_a_digest():
    first, second = [*sparse_tensors()], [*sparse_tensors()]
    found = [host(one) for one in first]
    assert all(found)
    assert len({*found}) == len(found)
    assert found == [host(one) for one in second]
    assert host(first[0]) != host(first[0] * 2)
    scale = torch.quantize_per_tensor(torch.zeros(2, 2), 0.1, 3, torch.quint8)
    other = torch.quantize_per_tensor(torch.zeros(2, 2), 0.2, 3, torch.quint8)
    assert host(scale) != host(other)


@pytest.mark.parametrize("name", [name for name in dir(torch) if name.startswith("float8_")])
def test_small_floating_point_numbers_have_a_digest(name):
    x = torch.arange(4, dtype=torch.uint8).view(getattr(torch, name))
    assert host(x) != host(x.view(torch.uint8).flip(0).view(x.dtype))


def test_a_tensor_without_content_has_no_digest():
    assert digests(torch.empty(3, device="meta")) == []
    with torch._subclasses.FakeTensorMode():
        assert digests(torch.empty(3)) == []
    assert digests(torch.nn.UninitializedParameter()) == []


def test_a_large_tensor_has_the_same_digest_with_and_without_threads():
    from concurrent.futures import ThreadPoolExecutor

    x = torch.randn(3 * contents._PIECE // 4 + 5, generator=torch.Generator().manual_seed(1))
    with ThreadPoolExecutor(2) as pool:
        assert digests(x, pool) == digests(x)
    assert digests(x) != digests(x.flip(0))
