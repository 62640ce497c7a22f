"""`digest` differs with any bit, type or shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedscope.support.digests import _mixed, digest, word_sum


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor.* deprecated:UserWarning")
def test_a_digest_tells_every_bit_type_and_shape_apart():
    values = [
        torch.zeros(2),
        torch.tensor([0.0, -0.0]),
        torch.zeros(2, 1),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(2, dtype=torch.bfloat16),
        [torch.zeros(2)],
        [torch.zeros(1), torch.zeros(1)],
        {"a": torch.zeros(2)},
        np.zeros(2, dtype=np.float32),
        0.0,
        -0.0,
        0,
        False,
        "0",
        (0.0, None),
        [1, 23],
        [12, 3],
        ["a", "b"],
        ["a1", "b"],
        float("nan"),
        torch.tensor([1 + 1j]),
        torch.tensor([1 + 1j]).conj(),
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(torch.zeros(2)) == digest(torch.zeros(2))
    network = torch.nn.BatchNorm1d(3)
    before = digest(network)
    network.running_mean[1] = 1e-45  # the smallest number, in a buffer
    assert digest(network) != before
    before, weight = digest(network), digest(network.weight)
    network.weight.grad = torch.zeros(3)
    assert digest(network) != before
    assert digest(network.weight) != weight
    quantized = torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)
    for odd in (object(), torch.eye(2).to_sparse(), quantized, np.array([object()])):
        with pytest.raises(TypeError, match="return the model, or tensors"):
            digest(odd)


@given(data=st.binary(min_size=1, max_size=100), where=st.integers(0), bit=st.integers(0, 7))
def test_the_sums_that_compare_on_a_gpu_differ_with_any_bit(data, where, bit):
    first = torch.tensor(list(data), dtype=torch.uint8)
    second = first.clone()
    assert torch.equal(word_sum(first), word_sum(second))
    second[where % len(data)] ^= 1 << bit
    assert not torch.equal(word_sum(first), word_sum(second))


@given(
    seed=st.integers(0, 2**32 - 1),
    places=st.integers(2, 50),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_the_sums_differ_with_several_last_bits_signs_or_places(seed, places, dtype):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(4096, generator=generator).to(dtype)
    which = torch.randperm(4096, generator=generator)[:places]
    others = [first.clone() for _ in range(3)]
    others[0][which] = torch.nextafter(first[which].float(), torch.tensor(0.0)).to(dtype)
    others[1][which] = first[which.roll(1)]
    others[2][which] *= -1  # only the top bits, as in an eigenvector of the other sign
    sums = [word_sum(x.view(torch.uint8)) for x in others]
    for other, found in zip(others, sums, strict=True):
        if not torch.equal(other, first):
            assert not torch.equal(found, word_sum(first.view(torch.uint8)))


def test_the_sum_of_a_tensor_of_several_pieces_differs_with_each():
    first = torch.zeros(2**25 + 3, dtype=torch.uint8)
    total = word_sum(first)
    for place in (0, 2**24, 2**25 + 2):
        second = first.clone()
        second[place] = 1
        assert word_sum(second) != total


def test_the_mixing_is_that_of_splitmix64():
    # The first outputs of https://prng.di.unimi.it/splitmix64.c from state 0 and state 1234567.
    step = 0x9E3779B97F4A7C15
    words = [(start + step) % 2**64 for start in (0, 1234567)]
    signed = torch.tensor([word - 2**64 if word >= 2**63 else word for word in words])
    outputs = [word % 2**64 for word in _mixed(signed).tolist()]
    assert outputs == [0xE220A8397B1DCDAF, 6457827717110365317]


def test_a_digest_of_an_optimizer_is_that_of_its_state():
    def adam(steps):
        weights = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.Adam([weights])
        for _ in range(steps):
            weights.grad = torch.ones(3)
            optimizer.step()
        return optimizer

    assert digest(adam(2)) == digest(adam(2)) == digest(adam(2).state_dict())
    assert digest(adam(2)) != digest(adam(1))
