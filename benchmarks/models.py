"""Training steps to measure: well-known networks, or small stand-ins of the same kind.

Weights and inputs are random. Where a library is missing, and on the CPU, where the real
ones would take hours, the stand-in here is used, and its name says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Case:
    """A network, what is done with it, and in which precision."""

    model: str
    mode: str = "train"  # or "eval": a forward without gradients
    precision: str = "bf16"  # autocast; or "tf32"

    @property
    def name(self) -> str:
        return f"{self.model}, {self.mode}, {self.precision}"

    @property
    def has_attention(self) -> bool:
        return self.model in ("ViT-B/16", "GPT-2 small")

    @property
    def has_sizes(self) -> bool:
        """Whether its input may have any height and width."""
        return self.model not in ("ViT-B/16", "GPT-2 small", "LSTM")


_NAMES = (
    "ResNet-50",
    "VGG-19",
    "EfficientNet-B0",
    "ConvNeXt-T",
    "ViT-B/16",
    "GPT-2 small",
    "U-Net",
    "LSTM",
    "DeepLabV3",
)
CASES = (
    Case("ResNet-50", precision="tf32"),
    *(Case(name) for name in _NAMES),
    *(Case(name, "eval") for name in _NAMES),
)


def make_step(case: Case, device: str, size: int | None = None) -> Callable[[], Any]:
    """Build `case` and return its step, which returns the network, or in eval the output.

    Four sets of inputs take turns; on a GPU they are larger than its cache. `size` is the
    height and width of the input, where the network takes any.
    """
    small = device == "cpu"
    with torch.device(device):
        network = build(case.model, small)
        inputs = [_input(case.model, small, size) for _ in range(1 if small else 4)]
    if case.has_sizes:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
    batches = cycle(inputs)
    autocast = torch.autocast(device, torch.bfloat16, enabled=case.precision == "bf16")

    if case.mode == "eval":
        network.eval()

        def evaluate() -> Any:
            with torch.no_grad(), autocast:
                return _output(network(next(batches)))

        return evaluate

    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, foreach=True)

    def train() -> Any:
        with autocast:
            loss = _output(network(next(batches))).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return network

    return train


def _output(found: Any) -> torch.Tensor:
    """The tensor in what a library's network returns."""
    if isinstance(found, torch.Tensor):
        return found
    return found["logits"] if "logits" in found else found["out"]


def _input(model: str, small: bool, size: int | None) -> torch.Tensor:
    if model == "GPT-2 small":
        return torch.randint(0, 200 if small else 50257, (2, 32) if small else (8, 1024))
    if model == "LSTM":
        return torch.randn((4, 16, 32) if small else (64, 128, 512))
    height = size or (32 if small else {"U-Net": 256, "DeepLabV3": 256}.get(model, 224))
    batch = 2 if small else {"U-Net": 16, "DeepLabV3": 16}.get(model, 64)
    return torch.randn(batch, 3, height, height)


# By library: module, and how it builds what is named.
_BUILDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ResNet-50": ("torchvision.models", "resnet50", {}),
    "VGG-19": ("torchvision.models", "vgg19", {}),
    "EfficientNet-B0": ("torchvision.models", "efficientnet_b0", {}),
    "ConvNeXt-T": ("torchvision.models", "convnext_tiny", {}),
    "ViT-B/16": ("torchvision.models", "vit_b_16", {}),
    "DeepLabV3": (
        "torchvision.models.segmentation",
        "deeplabv3_resnet50",
        {"weights": None, "weights_backbone": None},
    ),
}


def origin(model: str, small: bool) -> str:
    """Return where the network comes from: a library and its version, or a stand-in."""
    if model in ("U-Net", "LSTM"):
        return "small, of this repository" if small else "of this repository"
    library = "transformers" if model == "GPT-2 small" else "torchvision"
    try:
        found = importlib.import_module(library)
    except ImportError:
        return f"small stand-in, without {library}"
    return "small stand-in" if small else f"{library} {found.__version__}"


def build(model: str, small: bool) -> nn.Module:
    if origin(model, small).startswith("small"):
        return _STAND_INS[model]()
    if model == "GPT-2 small":
        transformers = importlib.import_module("transformers")
        return transformers.GPT2LMHeadModel(transformers.GPT2Config())  # type: ignore[no-any-return]
    if model in _BUILDERS:
        module, function, options = _BUILDERS[model]
        return getattr(importlib.import_module(module), function)(**options)  # type: ignore[no-any-return]
    return UNet(64) if model == "U-Net" else Recurrent(512, 1024, layers=3)


class UNet(nn.Module):
    """Two levels down and up: bilinear upsampling on one way up, a transposed one on the other."""

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
    """Patches or tokens, two layers of attention with dropout."""

    def __init__(self, tokens: int | None) -> None:
        super().__init__()
        self.embed: nn.Module = nn.Embedding(tokens, 32) if tokens else nn.Conv2d(3, 32, 8, 8)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, tokens or 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(self.layers(x if x.ndim == 3 else x.flatten(2).transpose(1, 2)))  # type: ignore[no-any-return]


class Upsampled(nn.Module):
    """As a segmentation network ends: features, enlarged without a deterministic backward."""

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


_STAND_INS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-50": _convolutions,
    "VGG-19": _convolutions,
    "EfficientNet-B0": lambda: _convolutions(groups=8),
    "ConvNeXt-T": lambda: _convolutions(groups=8),
    "ViT-B/16": lambda: Transformer(None),
    "GPT-2 small": lambda: Transformer(200),
    "U-Net": lambda: UNet(4),
    "LSTM": lambda: Recurrent(32, 32, layers=2),
    "DeepLabV3": Upsampled,
}
