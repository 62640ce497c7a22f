"""This repository's networks: two that are measured, and small stand-ins for the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class UNet(nn.Module):
    """Two levels down and up: one level up is a transposed convolution, the other bilinear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _block(3, width)
        self.second = _block(width, 2 * width)
        self.bottom = _block(2 * width, 4 * width)
        self.up = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.late = _block(4 * width, 2 * width)
        self.last = _block(3 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        up = self.up(self.bottom(F.max_pool2d(second, 2)))
        late = self.late(torch.cat([up, second], 1))
        wide = F.interpolate(late, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.last(torch.cat([wide, first], 1)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self, width: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True, dropout=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Two layers of attention with dropout, on patches or tokens."""

    def __init__(self, tokens: int | None) -> None:
        super().__init__()
        self.embed: nn.Module = nn.Embedding(tokens, 32) if tokens else nn.Conv2d(3, 32, 8, 8)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, tokens or 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        if x.ndim == 3:
            return self.head(self.layers(x))  # type: ignore[no-any-return]
        return self.head(self.layers(x.flatten(2).transpose(1, 2)).mean(1))  # type: ignore[no-any-return]


class Upsampled(nn.Module):
    """The end of a segmentation network: features, enlarged by a nondeterministic backward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _block(3, 8, stride=2)
        self.head = nn.Conv2d(8, 4, 3, padding=2, dilation=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = F.adaptive_avg_pool2d(self.head(self.body(x)), 4)
        return F.interpolate(pooled, x.shape[-2:], mode="bilinear", align_corners=False)


def _block(channels: int, width: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, padding=1, groups=groups),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def _convolutions(groups: int = 1) -> nn.Module:
    blocks = [_block(3, 8), _block(8, 16, 2, groups), _block(16, 16, 1, groups)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


#: The stand-ins, by the name of the network that each replaces.
STAND_INS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-50": _convolutions,
    "VGG-19": _convolutions,
    "EfficientNet-B0": lambda: _convolutions(groups=8),
    "ConvNeXt-T": lambda: _convolutions(groups=8),
    "ViT-B/16": lambda: Transformer(None),
    "GPT-2 small": lambda: Transformer(200),
    "Llama 1B": lambda: Transformer(200),
    "U-Net": lambda: UNet(4),
    "LSTM": lambda: Recurrent(32, 32, layers=2),
    "DeepLabV3": Upsampled,
}
