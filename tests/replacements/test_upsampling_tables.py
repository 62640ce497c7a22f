"""How the taps of an interpolation are read off torch's forward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seedscope.replacements import upsampling

BICUBIC = torch.ops.aten.upsample_bicubic2d


def of_a_gpu(images: torch.Tensor, size: list[int], *options: Any) -> torch.Tensor:
    """As torch's CUDA kernel: it copies an image whose size stays, whatever the scale."""
    return images if [*images.shape[2:]] == size else BICUBIC(images, size, *options)


@pytest.mark.parametrize("outputs", [5, 9])
def test_an_axis_is_read_from_images_that_no_kernel_copies(outputs, monkeypatch):
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    expected = BICUBIC(rows[:, None, None], [1, outputs], False, None, 1.15)[:, 0, 0]
    assert outputs != 5 or not torch.equal(expected, rows), "torch's CPU kernel copies nothing"
    monkeypatch.setattr(upsampling, "_aten", SimpleNamespace(upsample_bicubic2d=of_a_gpu))
    found = upsampling._images("upsample_bicubic2d")(rows, outputs, False, 1.15)
    assert torch.equal(found, expected)
