"""Networks whose training step raises without replacements: with them it repeats bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedscope import seeded
from seedscope.replacements.counts import totals
from seedscope.replacements.kernels import IS_SUPPORTED

pytestmark = pytest.mark.skipif(not IS_SUPPORTED, reason="replacements need torch 2.9")
CLASSES = 5


class Branches(nn.ModuleList):
    """Modules beside each other, whose channels are joined."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], 1)


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Unpooled(nn.Sequential):
    """Layers on the maxima, whose results go back to where the maxima were."""

    def forward(self, maps: Tensor) -> Tensor:
        maxima, places = F.max_pool2d(maps, 2, return_indices=True)
        return F.max_unpool2d(super().forward(maxima), places, 2)


class Posed(nn.Sequential):
    """Layers that choose an affine map, through which their input is seen."""

    def forward(self, maps: Tensor) -> Tensor:
        pose = super().forward(maps).view(-1, 2, 3) + torch.eye(2, 3)
        grid = F.affine_grid(pose, [*maps.shape], align_corners=False)
        return F.grid_sample(maps, grid, align_corners=False)


class Recurrence(nn.LSTM):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flatten(1, 2).permute(2, 0, 1))[0]


def block(inputs: int, outputs: int, dims: int = 2, rate: int = 1, stride: int = 1) -> nn.Module:
    kind, norm = getattr(nn, f"Conv{dims}d"), getattr(nn, f"BatchNorm{dims}d")
    # The norm takes the mean away, so that a bias would have no gradient but noise.
    convolution = kind(inputs, outputs, 3, stride, rate, rate, bias=False)
    return nn.Sequential(convolution, norm(outputs), nn.ReLU())


def skipped(*layers: nn.Module) -> nn.Module:
    return Branches([nn.Identity(), nn.Sequential(*layers)])


def body() -> tuple[nn.Module, ...]:
    return block(3, 8), nn.MaxPool2d(2), block(8, 16), nn.MaxPool2d(2)


def pooled(size: int) -> tuple[nn.Module, ...]:
    """Return a head that has the mean of 16 maps over `size` x `size` bins."""
    hidden = nn.Linear(16 * size * size, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, CLASSES)
    return nn.AdaptiveAvgPool2d((size, size)), nn.Flatten(), *hidden


def alexnet() -> nn.Module:
    first = nn.Conv2d(3, 8, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)
    second = nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)
    return nn.Sequential(*first, *second, *pooled(6))


def fcn(*middle: nn.Module) -> nn.Module:
    head = nn.Dropout(0.1), nn.Conv2d(16, CLASSES, 1), nn.Upsample((33, 41), mode="bilinear")
    return nn.Sequential(*body(), *middle, block(16, 16), *head)


def deeplab() -> nn.Module:
    up = nn.Upsample((8, 10), mode="bilinear")
    whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), up)
    return fcn(Branches([whole, *(block(16, 4, 2, rate) for rate in (1, 2, 4))]))


def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    sizes = {"hidden_sizes": [8, 8, 16, 16], "decoder_hidden_size": 16, "depths": [1, 1, 1, 1]}
    config = SegformerConfig(num_labels=CLASSES, num_attention_heads=[1, 1, 2, 2], **sizes)
    return SegformerForSemanticSegmentation(config).train()


def crnn() -> nn.Module:
    images = block(1, 8), nn.MaxPool2d(2), block(8, 8), nn.MaxPool2d((2, 1))
    head = nn.Linear(32, CLASSES), nn.LogSoftmax(-1)
    return nn.Sequential(*images, Recurrence(32, 16, bidirectional=True), *head)


def spatial_transformer() -> nn.Module:
    posed = Posed(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(8 * 5 * 6, 6))
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    return nn.Sequential(block(3, 8), posed, block(8, 8), *head)


def unet() -> nn.Module:
    down, up = nn.MaxPool3d(2), nn.Upsample(scale_factor=2, mode="trilinear")
    bottom = skipped(down, block(8, 8, 3), up)
    middle = skipped(down, block(4, 8, 3), bottom, block(16, 8, 3), up)
    return nn.Sequential(block(1, 4, 3), middle, block(12, 8, 3), nn.Conv3d(8, CLASSES, 1))


def generator() -> nn.Module:
    def normed(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
        return nn.Sequential(layer, nn.InstanceNorm2d(layer.out_channels))

    def padded() -> nn.Module:
        return nn.Sequential(nn.ReflectionPad2d(1), normed(nn.Conv2d(16, 16, 3)))

    up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(
        *(nn.ReflectionPad2d(3), normed(nn.Conv2d(3, 8, 7)), nn.ReLU()),
        *(normed(nn.Conv2d(8, 16, 3, stride=2, padding=1)), nn.ReLU()),
        *(Residual(padded(), nn.ReLU(), padded()) for _ in range(2)),
        *(normed(up), nn.ReLU(), nn.ReflectionPad2d(3), nn.Conv2d(8, 3, 7), nn.Tanh()),
    )


def wave_unet() -> nn.Module:
    up = nn.Upsample(scale_factor=2, mode="linear", align_corners=True)
    deep = skipped(block(8, 8, 1, stride=2), block(8, 8, 1), up)
    return nn.Sequential(block(1, 8, 1), deep, block(16, 8, 1), nn.Conv1d(8, 1, 1))


def segnet() -> nn.Module:
    inner = Unpooled(block(8, 8), Unpooled(block(8, 8)), block(8, 8))
    return nn.Sequential(block(3, 8), inner, nn.Conv2d(8, CLASSES, 3, padding=1))


def classifier(name: str, features: int) -> nn.Module:
    """Return one of torchvision, with a small layer for its last ones, of 10**8 weights."""
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        network = getattr(models, name)()
    network.features.to_empty(device="cpu")
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    network.classifier = nn.Linear(features, CLASSES)
    return network


def segmenter(name: str) -> nn.Module:
    """Return one of torchvision, on torchvision's smallest body."""
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    from torchvision.models import resnet18, segmentation

    features = extraction.create_feature_extractor(resnet18(), {"layer3": "out"})
    heads = {**vars(segmentation.fcn), **vars(segmentation.deeplabv3)}
    head = heads[f"{name.removesuffix('V3')}Head"](256, CLASSES)
    return getattr(segmentation, name)(features, head)


def of_labels(network: nn.Module, images: Tensor) -> Tensor:
    """Return the loss of a class for each image, or for each pixel."""
    found = network(images)
    found = found["out"] if isinstance(found, dict) else found
    return F.cross_entropy(found, torch.randint(CLASSES, (len(found), *found.shape[2:])))


def of_itself(network: nn.Module, images: Tensor) -> Tensor:
    return network(pixel_values=images, labels=torch.randint(CLASSES, images[:, 0].shape)).loss


def of_text(network: nn.Module, images: Tensor) -> Tensor:
    found = network(images)
    text = torch.randint(1, CLASSES, (len(images), 6))
    return F.ctc_loss(found, text, torch.tensor([len(found), 17]), torch.tensor([6, 4]))


def of_spectra(network: nn.Module, sound: Tensor) -> Tensor:
    pair = network(sound)[:, 0], torch.randn(sound.shape)[:, 0]
    spectrum = partial(torch.stft, n_fft=32, window=torch.hann_window(32), return_complex=True)
    return F.l1_loss(*(spectrum(one).abs() for one in pair))


class Network(NamedTuple):
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    replaced: set[str]
    loss: Callable[[nn.Module, Tensor], Tensor] = of_labels


AVERAGE, PIXELS = {"aten::_adaptive_avg_pool2d_backward"}, {"aten::nll_loss2d_forward"}
IMAGES = {"aten::upsample_bilinear2d_backward", *PIXELS}
VOLUMES = {"aten::max_pool3d_with_indices_backward", "aten::upsample_trilinear3d_backward", *PIXELS}
SOUND = {"aten::reflection_pad1d_backward", "aten::upsample_linear1d_backward"}
MIRROR, GRID = {"aten::reflection_pad2d_backward"}, {"aten::grid_sampler_2d_backward"}
NETWORKS = {
    "VGG": Network(lambda: nn.Sequential(*body(), *pooled(7)), (2, 3, 40, 48), AVERAGE),
    "AlexNet": Network(alexnet, (2, 3, 128, 160), AVERAGE),
    "FCN": Network(fcn, (2, 3, 33, 41), IMAGES),
    "DeepLabV3": Network(deeplab, (2, 3, 33, 41), IMAGES),
    "SegFormer": Network(segformer, (2, 3, 64, 64), IMAGES, of_itself),
    "CRNN": Network(crnn, (2, 1, 16, 40), {"aten::_ctc_loss_backward"}, of_text),
    "spatial transformer": Network(spatial_transformer, (4, 3, 20, 24), GRID),
    "3-d U-Net": Network(unet, (2, 1, 8, 12, 16), VOLUMES),
    "CycleGAN": Network(generator, (2, 3, 20, 24), MIRROR, lambda net, x: F.l1_loss(net(x), x)),
    "Wave-U-Net": Network(wave_unet, (2, 1, 256), SOUND, of_spectra),
    "SegNet": Network(segnet, (2, 3, 16, 24), {"aten::max_unpool2d", *PIXELS}),
    "torchvision VGG": Network(partial(classifier, "vgg11", 25088), (2, 3, 64, 64), AVERAGE),
    "torchvision AlexNet": Network(partial(classifier, "alexnet", 9216), (2, 3, 96, 96), AVERAGE),
    "torchvision FCN": Network(partial(segmenter, "FCN"), (2, 3, 64, 64), IMAGES),
    "torchvision DeepLabV3": Network(partial(segmenter, "DeepLabV3"), (3, 3, 64, 64), IMAGES),
}


class Trained(NamedTuple):
    network: Network
    native: list[Tensor]  # the loss, and each gradient
    native_calls: list[str]  # of the kernels that raise under strict settings
    strict: list[list[Tensor]]
    replaced: list[dict[str, int]]


def step(network: Network) -> list[Tensor]:
    module = network.build()
    loss = network.loss(module, torch.randn(network.shape))
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in module.parameters())]


def native_step(network: Network) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1029)
        return step(network)


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request: pytest.FixtureRequest, raising_cpu: list[str]) -> Iterator[Trained]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other while other tests have the cores
    try:
        network = NETWORKS[request.param]
        raising_cpu.clear()
        found = Trained(network, native_step(network), [*raising_cpu], [], [])
        for _ in range(2):
            with seeded(1029) as scope:
                found.strict.append(step(network))
            found.replaced.append(scope.replaced)
        yield found
    finally:  # also if a library is missing
        torch.set_num_threads(threads)


def test_a_network_that_raised_trains_strictly_to_the_same_bits_twice(trained: Trained):
    assert all(map(torch.equal, *trained.strict))
    assert trained.replaced[0] == trained.replaced[1]


def test_a_strict_step_differs_from_torchs_own_by_rounding_alone(trained: Trained):
    whole = torch.cat([native.flatten() for native in trained.native[1:]]).norm()
    for strict, native in zip(trained.strict[0], trained.native, strict=True):
        assert native.isfinite().all()
        # float32 rounds by 6e-8, and the layers make at most 3e-6 of it. A bias that the next
        # layer normalises away has a gradient of noise alone, whose measure is the whole.
        assert (strict - native).norm() <= 1e-5 * max(native.norm(), 0.1 * whole)


def test_exactly_the_operations_that_raise_are_replaced(trained: Trained):
    replaced = trained.replaced[0]
    assert set(replaced) == trained.network.replaced
    calls = Counter(name.partition(".")[0] for name in trained.native_calls)
    if "aten::max_unpool2d" in replaced:  # the CPU's own kernel raises, without a stand-in
        calls["aten::max_unpool2d"] = 2
    assert replaced == calls


def test_without_replacements_the_network_raises(trained: Trained):
    without = seeded(1029, replacements=False)
    with pytest.raises(RuntimeError, match="deterministic implementation"), without:
        step(trained.network)


def test_after_the_block_torchs_own_kernels_run(trained: Trained, native_calls: list[str]):
    before = totals()
    assert all(map(torch.equal, native_step(trained.network), trained.native))
    assert Counter(native_calls) == Counter(trained.native_calls)
    assert totals() == before
