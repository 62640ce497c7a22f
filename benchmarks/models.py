"""Training steps to measure: well-known networks, or small stand-ins of the same kind.

Weights and inputs are random. If a library is missing, and on the CPU, where real networks
would take hours, a stand-in is used, and `origin` says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .items import Scale
from .own_networks import STAND_INS, Recurrent, UNet


@dataclass(frozen=True)
class Case:
    """A network, the work to do with it, and the precision."""

    model: str
    mode: str = "train"  # or "eval": a forward without gradients, in eval mode
    precision: str = "bf16"  # autocast; or "tf32"

    @property
    def name(self) -> str:
        return f"{self.model}, {self.mode}, {self.precision}"

    @property
    def has_sizes(self) -> bool:
        """Whether the input may have any height and width."""
        return self.model not in ("ViT-B/16", "LSTM", *_TOKENS)


#: Inputs, and the targets of the loss.
Batch = tuple[torch.Tensor, torch.Tensor]

#: The networks to measure, the most important first.
NAMES = (
    "ResNet-50",
    "ViT-B/16",
    "GPT-2 small",
    "U-Net",
    "ConvNeXt-T",
    "VGG-19",
    "EfficientNet-B0",
    "LSTM",
    "DeepLabV3",
)
TRAINING = tuple(Case(name) for name in NAMES)
TF32 = Case("ResNet-50", precision="tf32")
EVALUATION = tuple(Case(name, "eval") for name in NAMES)
LARGE = Case("Llama 1B")


class Network:
    """A network that is built once, and can restart any number of times.

    Four batches take turns, which together exceed a GPU's cache; a small network has one.
    """

    def __init__(self, case: Case, scale: Scale, size: int | None = None) -> None:
        """Build the network and its inputs, with random numbers from torch's generators.

        `size` is the height and width of the input, if the network takes any size.
        """
        self.case = case
        self.scale = scale
        with torch.device(scale.device):
            self.network = build(case.model, scale.small)
        if case.has_sizes:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.train(case.mode == "train")
        self._batches = [self._batch(size) for _ in range(1 if scale.small else 4)]
        self._optimizer = self._new_optimizer()
        self._autocast = torch.autocast(
            scale.device, torch.bfloat16, enabled=case.precision == "bf16"
        )
        self._initial = {name: x.clone() for name, x in self.network.state_dict().items()}

    @property
    def kept_mb(self) -> float:
        """The memory of the copy of the initial weights, in 10**6 bytes."""
        return sum(float(x.nbytes) for x in self._initial.values()) / 1e6

    @property
    def input_shape(self) -> list[int]:
        return [*self._batches[0][0].shape]

    def restart(self) -> Callable[[], Any]:
        """Reset the network to its initial weights; return its step.

        A training step returns the network with its gradients; an evaluation, its output.
        """
        self.network.load_state_dict(self._initial)
        self.network.zero_grad()
        self._optimizer = self._new_optimizer()
        batches = cycle(self._batches)
        return partial(self._evaluate if self.case.mode == "eval" else self._train, batches)

    def at_size(self, size: int) -> Callable[[], Any]:
        """Return a training step on images of another size; keep the network's present weights."""
        return partial(self._train, cycle([self._batch(size)]))

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=1e-4, foreach=True)

    def _batch(self, size: int | None) -> Batch:
        model, small = self.case.model, self.scale.small
        with torch.device(self.scale.device):
            x = _input(model, small, size)
            if self.case.has_sizes:
                x = x.contiguous(memory_format=torch.channels_last)
            return x, _target(model, small, x)

    def _evaluate(self, batches: Iterator[Batch]) -> torch.Tensor:
        with torch.no_grad(), self._autocast:
            return _output(self.network(next(batches)[0]))

    def _train(self, batches: Iterator[Batch]) -> nn.Module:
        self._optimizer.zero_grad()  # not at the end, because gradients are compared too
        x, target = next(batches)
        with self._autocast:
            output = _output(self.network(x))
        _loss(self.case.model, output.float(), target).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return self.network


def _output(found: Any) -> torch.Tensor:
    """Return the tensor in the output of a library's network."""
    if isinstance(found, torch.Tensor):
        return found
    output: torch.Tensor = found["logits"] if "logits" in found else found["out"]
    return output


def _loss(model: str, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the usual loss of such a network."""
    if model == "LSTM":
        return F.mse_loss(output, target)
    if model == "U-Net":
        return F.binary_cross_entropy_with_logits(output, target)
    return F.cross_entropy(output.flatten(0, 1) if model in _TOKENS else output, target)


def _input(model: str, small: bool, size: int | None) -> torch.Tensor:
    if model in _TOKENS:
        vocabulary, batch, length = (200, 2, 32) if small else _TOKENS[model]
        return torch.randint(0, vocabulary, (batch, length))
    if model == "LSTM":
        return torch.randn((4, 16, 32) if small else (64, 128, 512))
    batch, height = (2, 32) if small else _IMAGES.get(model, (64, 224))
    height = size or height
    return torch.randn(batch, 3, height, height)


def _target(model: str, small: bool, x: torch.Tensor) -> torch.Tensor:
    if model in _TOKENS:
        return x.roll(-1, 1).flatten()  # the next token
    if model == "LSTM":
        return torch.randn(*x.shape[:2], 32 if small else 1024)
    if model == "U-Net":
        return torch.rand(len(x), 2, *x.shape[2:]).round()
    if model == "DeepLabV3":
        return torch.randint(0, 4 if small else 21, (len(x), *x.shape[2:]))
    return torch.randint(0, 10 if small else 1000, (len(x),))


#: Batch and height of the images if they are not 64 and 224: so large that the GPU limits the
#: time of a step, and not the CPU, which launches the GPU's work.
_IMAGES = {
    "ResNet-50": (128, 224),
    "ViT-B/16": (256, 224),
    "U-Net": (16, 256),
    "ConvNeXt-T": (192, 224),
    "EfficientNet-B0": (384, 224),
    "DeepLabV3": (64, 256),
}
#: Vocabulary, batch and length of the networks that read tokens.
_TOKENS = {"GPT-2 small": (50257, 8, 1024), "Llama 1B": (32000, 4, 2048)}
#: The size of Llama 3.2 1B, with a smaller vocabulary:
#: https://github.com/meta-llama/llama-models/blob/main/models/sku_list.py
_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "use_cache": False,
}

# By network: the library's module, the function that builds the network, and its options.
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
    """Return the network's origin: a library and its version, this repository, or a stand-in."""
    if model in ("U-Net", "LSTM"):
        return "small, of this repository" if small else "of this repository"
    library = "transformers" if model in _TOKENS else "torchvision"
    try:
        found = importlib.import_module(library)
    except ImportError:
        return f"small stand-in, without {library}"
    return "small stand-in" if small else f"{library} {found.__version__}"


def build(model: str, small: bool) -> nn.Module:
    if origin(model, small).startswith("small"):
        return STAND_INS[model]()
    if model in _TOKENS:
        transformers = importlib.import_module("transformers")
        if model == "GPT-2 small":
            return transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))  # type: ignore[no-any-return]
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_LLAMA))  # type: ignore[no-any-return]
    if model in _BUILDERS:
        module, function, options = _BUILDERS[model]
        return getattr(importlib.import_module(module), function)(**options)  # type: ignore[no-any-return]
    return UNet(64) if model == "U-Net" else Recurrent(512, 1024, layers=3)
