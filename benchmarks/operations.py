"""The operations of the atlas: how each is called, and which entries of the three lists it is.

Inputs are made once, and an operation is run on them again and again. Where many sources add
into few places, differences in the order of additions show; so most have many collisions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from .items import Scale

Call = Callable[[], Any]


@dataclass(frozen=True)
class Operation:
    """One row of the atlas.

    `entries` are names on the lists, as they stand there: alerts, operator tests, documentation.
    """

    name: str
    make: Callable[[Inputs], Call]
    entries: tuple[str, ...] = ()


class Inputs:
    """Makes the inputs on a device; `n` is the number of sources where many add into few."""

    def __init__(self, scale: Scale) -> None:
        self.device = scale.device
        self.small = scale.small
        self.n = 2**15 if scale.small else 2**20
        self.side = 16 if scale.small else 64
        self.batch = 2 if scale.small else 8

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device)

    def below(self, limit: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, limit, shape, device=self.device)

    def image(self, dims: int, channels: int = 8) -> torch.Tensor:
        """A batch of signals, images or volumes."""
        side = {1: self.side * 16, 2: self.side, 3: self.side // 4}[dims]
        return self.randn(self.batch, channels, *[side] * dims)


def gradient(function: Callable[..., Any], *inputs: torch.Tensor, of: int = 0) -> Call:
    """A call that gives the gradient of `function`'s (first) output in one of its inputs."""
    leaves = [
        x.detach().requires_grad_(x.is_floating_point() and i == of) for i, x in enumerate(inputs)
    ]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        weight = torch.randn_like(_first(function(*leaves)))

    def call() -> Any:
        return torch.autograd.grad(_first(function(*leaves)), leaves[of], weight)[0]

    return call


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


# -------------------------------------------------------------------- convolutions

_CONVOLUTIONS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "conv1d": ("conv1d", 1, 3, {"padding": 1}),
    "conv2d 3x3": ("conv2d", 2, 3, {"padding": 1}),
    "conv2d dilated": ("conv2d", 2, 3, {"padding": 4, "dilation": 4}),
    "conv2d grouped": ("conv2d", 2, 3, {"padding": 1, "groups": 4}),
    "conv2d depthwise": ("conv2d", 2, 3, {"padding": 1, "groups": 32}),
    "conv3d": ("conv3d", 3, 3, {"padding": 1}),
    "conv_transpose1d": ("conv_transpose1d", 1, 3, {"stride": 2}),
    "conv_transpose2d": ("conv_transpose2d", 2, 3, {"stride": 2}),
    "conv_transpose3d": ("conv_transpose3d", 3, 3, {"stride": 2}),
}
_WIDTH = 32


def _convolution(t: Inputs, name: str, dims: int, kernel: int, options: Any, part: str) -> Call:
    x = t.image(dims, _WIDTH)
    groups = options.get("groups", 1)
    weight = t.randn(_WIDTH, _WIDTH // groups, *[kernel] * dims)
    function = partial(getattr(F, name), **options)
    if part == "forward":
        return lambda: function(x, weight)
    return gradient(function, x, weight, of=0 if part == "input gradient" else 1)


def _convolutions() -> list[Operation]:
    found = []
    for name, (function, dims, kernel, options) in _CONVOLUTIONS.items():
        module = f"nn.Conv{'Transpose' * ('transpose' in function)}{dims}d"
        lazy = module.replace("nn.", "nn.Lazy")
        entries = (f"nn.functional.{function}", module, lazy)
        for part in ("forward", "input gradient", "weight gradient"):
            make = partial(
                _convolution, name=function, dims=dims, kernel=kernel, options=options, part=part
            )
            found.append(Operation(f"{name}, {part}", make, entries))
    return found


# ------------------------------------------------- indexing, scattering, gathering

CROWDED, SPREAD = "many collisions", "few collisions"


def _places(t: Inputs, kind: str) -> tuple[torch.Tensor, int]:
    count = 64 if kind == CROWDED else t.n
    return t.below(count, t.n), count


def _indexed(method: str, kind: str, *reduce: Any, **options: Any) -> Callable[[Inputs], Call]:
    """`zeros.method(0, index, source)`, or with a reduction."""

    def make(t: Inputs) -> Call:
        index, count = _places(t, kind)
        source = t.randn(t.n).abs() + 0.5
        source = source**0.001 if "prod" in reduce else source  # whose product stays finite
        target = torch.ones(count, device=t.device)
        return lambda: getattr(target, method)(0, index, source, *reduce, **options)

    return make


def _index_put(accumulate: bool, kind: str) -> Callable[[Inputs], Call]:
    def make(t: Inputs) -> Call:
        index, count = _places(t, kind)
        source, target = t.randn(t.n), torch.zeros(count, device=t.device)
        return lambda: target.index_put((index,), source, accumulate=accumulate)

    return make


def _put(accumulate: bool) -> Callable[[Inputs], Call]:
    def make(t: Inputs) -> Call:
        index, count = _places(t, CROWDED)
        source, target = t.randn(t.n), torch.zeros(count, device=t.device)
        return lambda: target.put(index, source, accumulate=accumulate)

    return make


def _rows(function: Callable[..., Any], kind: str) -> Callable[[Inputs], Call]:
    """The gradient of reading rows of a table: each reads, so each adds into one place."""

    def make(t: Inputs) -> Call:
        index, count = _places(t, kind)
        return gradient(lambda table: function(table, index), t.randn(count, 4))

    return make


def _bags(mode: str) -> Callable[[Inputs], Call]:
    def make(t: Inputs) -> Call:
        index = t.below(64, t.n // 8, 8)
        return gradient(lambda table: F.embedding_bag(index, table, mode=mode), t.randn(64, 16))

    return make


def _indexing() -> list[Operation]:
    found = []
    for kind in (CROWDED, SPREAD):
        add = Operation
        found += [
            add(f"index_add, {kind}", _indexed("index_add", kind), ("index_add",)),
            add(f"scatter_add, {kind}", _indexed("scatter_add", kind), ("Tensor.scatter_add_",)),
            add(
                f"index_put accumulate, {kind}",
                _index_put(True, kind),
                ("Tensor.index_put",),
            ),
            add(
                f"gather backward, {kind}",
                _rows(lambda x, i: x[:, 0].gather(0, i), kind),
                ("gather", "take_along_dim"),
            ),
            add(
                f"embedding backward, {kind}",
                _rows(lambda x, i: F.embedding(i, x), kind),
                ("nn.Embedding",),
            ),
            add(
                f"index_select backward, {kind}",
                _rows(lambda x, i: x.index_select(0, i), kind),
                ("index_select",),
            ),
            add(
                f"x[[...]] backward, {kind}",
                _rows(lambda x, i: x[i], kind),
                ("Tensor.__getitem__",),
            ),
        ]
    for reduce in ("sum", "prod", "mean", "amax"):
        names = ["Tensor.scatter_reduce"]
        names.append(f"scatter_reduce_cuda_{'prod_' if reduce == 'prod' else 'kernel'}")
        make = _indexed("scatter_reduce", CROWDED, reduce)
        found.append(Operation(f"scatter_reduce {reduce}", make, tuple(names)))
    for reduce in ("prod", "mean", "amax"):
        make = _indexed("index_reduce", CROWDED, reduce)
        entries = ("index_reduce_cuda", f"index_reduce.{reduce}")
        found.append(Operation(f"index_reduce {reduce}", make, entries))
    found += [
        Operation("index_put", _index_put(False, CROWDED), ("Tensor.index_put",)),
        Operation("put accumulate", _put(True), ("Tensor.put_", "put_")),
        Operation("put", _put(False), ("Tensor.put_", "put_")),
        Operation(
            "index_copy", _indexed("index_copy", CROWDED), ("index_copy", "Tensor.index_copy")
        ),
        Operation("scatter", _indexed("scatter", CROWDED), ("Tensor.scatter", "scatter_cuda_")),
        Operation(
            "repeat_interleave backward",
            lambda t: gradient(lambda x: x.repeat_interleave(t.n // 64, 0), t.randn(64)),
            ("repeat_interleave",),
        ),
        Operation(
            "embedding_bag max backward",
            _bags("max"),
            ("nn.EmbeddingBag", "embedding_bag_backward_cuda_max", "nn.functional.embedding_bag"),
        ),
        Operation(
            "embedding_bag sum backward",
            _bags("sum"),
            ("nn.functional.embedding_bag",),
        ),
    ]
    return found


# -------------------------------------------------- scans, counting, ordering, sums


def _float(function: Callable[..., Any], *shape: int, back: bool = False) -> Any:
    def make(t: Inputs) -> Call:
        x = t.randn(*(shape or (t.n,)))
        return gradient(function, x) if back else lambda: function(x)

    return make


def _scans() -> list[Operation]:
    op = Operation
    return [
        op("cumsum", _float(lambda x: x.cumsum(0)), ("cumsum",)),
        op("cumprod", _float(lambda x: (1 + x / 1e4).cumprod(0))),
        op("logcumsumexp", _float(lambda x: x.logcumsumexp(0))),
        op("cummax backward", _float(lambda x: x.cummax(0), back=True), ("cummax",)),
        op("cummin backward", _float(lambda x: x.cummin(0), back=True), ("cummin",)),
        op("prod backward", _float(lambda x: (1 + x / 1e4).prod(), back=True), ("prod",)),
        op("sum", _float(torch.sum)),
        op("bincount", lambda t: partial(torch.bincount, t.below(64, t.n))),
        op(
            "bincount with weights",
            lambda t: partial(torch.bincount, t.below(64, t.n), t.randn(t.n)),
            ("bincount", "_bincount_cuda"),
        ),
        op(
            "histc",
            _float(lambda x: x.histc(64)),
            ("histc", "_histc_cuda with floating point input"),
        ),
        op(
            "median with indices",
            lambda t: partial(torch.median, t.below(64, t.n).float(), 0),
            ("median", "median CUDA with indices output"),
        ),
        op("kthvalue", lambda t: partial(torch.kthvalue, t.below(64, t.n).float(), t.n // 3)),
        op("topk", lambda t: partial(torch.topk, t.below(64, t.n).float(), 100)),
        op("sort", lambda t: partial(torch.sort, t.below(64, t.n).float())),
        op("sort stable", lambda t: partial(torch.sort, t.below(64, t.n).float(), stable=True)),
        op("unique", lambda t: partial(torch.unique, t.below(64, t.n), return_counts=True)),
        op(
            "torch.empty after free",
            lambda t: partial(_read_uninitialised, t),
            ("utils.deterministic.fill_uninitialized_memory",),
        ),
    ]


def _read_uninitialised(t: Inputs) -> torch.Tensor:
    """What memory holds that another tensor, with other values each time, has given back."""
    t.randn(4096)
    return torch.empty(4096, device=t.device)


# --------------------------------------------------- resizing, padding, pooling


def _resizing() -> list[Operation]:
    modes = [("nearest", 1), ("nearest", 2), ("nearest", 3), ("nearest-exact", 2), ("linear", 1)]
    modes += [("bilinear", 2), ("bicubic", 2), ("trilinear", 3), ("area", 2)]
    found = []
    for mode, dims in modes:
        names = [f"nn.functional.interpolate.{mode}"]
        # Of these modes alone the documentation says it.
        says = ("linear", "bilinear", "bicubic", "trilinear")
        names += ["nn.functional.interpolate"] * (mode in says)
        names.append(f"upsample_{mode}{dims}d_backward_out_cuda")
        names += {"bilinear": ["nn.functional.upsample_bilinear"]}.get(mode, [])
        if mode == "nearest":
            names.append("nn.functional.upsample_nearest")
        function = partial(F.interpolate, scale_factor=2, mode=mode)
        make = partial(_image_gradient, function=function, dims=dims)
        found.append(Operation(f"interpolate {mode} {dims}d backward", make, tuple(names)))
    for mode in ("bilinear", "bicubic"):
        function = partial(F.interpolate, scale_factor=0.5, mode=mode, antialias=True)
        entries = (f"upsample_{mode}2d_aa_backward_out_cuda", f"_upsample_{mode}2d_aa")
        make = partial(_image_gradient, function=function, dims=2)
        found.append(Operation(f"interpolate {mode} antialiased backward", make, entries))
    return found


def _image_gradient(t: Inputs, function: Any, dims: int) -> Call:
    return gradient(function, t.image(dims))


def _padding() -> list[Operation]:
    found = []
    for dims in (1, 2, 3):
        for mode, module in (("reflect", "Reflection"), ("replicate", "Replication")):
            kernel = f"{module.lower()}_pad{dims}d_backward"
            entries = (
                f"nn.functional.pad.{mode}",
                f"nn.{module}Pad{dims}d",
                f"{kernel}_out_cuda",
                f"{kernel}_cuda",
                *(["nn.functional.pad.replicate_negative"] if mode == "replicate" else []),
            )
            function = partial(F.pad, pad=[2] * 2 * dims, mode=mode)
            make = partial(_image_gradient, function=function, dims=dims)
            found.append(Operation(f"pad {mode} {dims}d backward", make, entries))
    return found


def _unpool(t: Inputs, dims: int) -> Call:
    values, index = getattr(F, f"max_pool{dims}d")(t.image(dims), 2, return_indices=True)
    return partial(getattr(F, f"max_unpool{dims}d"), values, index, 2)


def _pooling() -> list[Operation]:
    found = []
    for dims in (1, 2, 3):
        for kind, size in (("avg", 3), ("max", 3), ("adaptive_avg", 5), ("adaptive_max", 5)):
            name = f"{kind}_pool{dims}d"
            module = "nn." + "".join(part.title() for part in kind.split("_")) + f"Pool{dims}d"
            options = {} if kind.startswith("adaptive") else {"stride": 2}
            kernels = [f"{name}_backward_cuda", f"{name}_backward_out_cuda"]
            if name == "max_pool3d":
                kernels = [kernel.replace("3d_", "3d_with_indices_") for kernel in kernels]
            function = partial(getattr(F, name), **options)
            make = partial(_image_gradient, function=_with(function, size), dims=dims)
            entries = (f"nn.functional.{name}", module, *kernels)
            found.append(Operation(f"{name} backward", make, entries))
        if dims > 1:
            name = f"fractional_max_pool{dims}d"
            make = partial(_fractional, name=name, dims=dims)
            kernels = [f"{name}_backward_cuda", f"{name}_backward_out_cuda"]
            entries = (f"nn.functional.{name}", f"nn.FractionalMaxPool{dims}d", *kernels)
            found.append(Operation(f"{name} backward", make, entries))
        entries = (f"nn.MaxUnpool{dims}d", f"max_unpooling{max(dims, 2)}d_forward_out")
        found.append(Operation(f"max_unpool{dims}d", partial(_unpool, dims=dims), entries))
    return found


def _with(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    return lambda x: function(x, size)


def _fractional(t: Inputs, name: str, dims: int) -> Call:
    x = t.image(dims)
    samples = torch.rand(t.batch, x.shape[1], dims, device=t.device)
    function = partial(getattr(F, name), kernel_size=2, output_ratio=[0.7] * dims)
    return gradient(lambda x: function(x, _random_samples=samples), x)


# --------------------------------------------------------- losses, sampling, attention


def _ctc(t: Inputs) -> Call:
    time, batch, classes = 128, t.batch * 4, 20
    targets = 1 + t.below(classes - 1, batch, 30)
    lengths = [torch.full((batch,), size, device=t.device) for size in (time, 30)]
    return gradient(
        lambda x: F.ctc_loss(x.log_softmax(2), targets, *lengths), t.randn(time, batch, classes)
    )


def _grid(t: Inputs, dims: int) -> Call:
    x = t.image(dims)
    grid = t.randn(t.batch, *[2 * x.shape[-1]] * dims, dims) / 2
    return gradient(partial(F.grid_sample, align_corners=False), x, grid)


def _attention(t: Inputs, backend: str, length: int, is_backward: bool) -> Call:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # As many tokens for each length; on the CPU fewer, and in a type that it is quick in.
    batch, heads, length = (1, 2, length // 16) if t.small else (16384 // length, 16, length)
    kind = torch.float32 if t.small else torch.bfloat16
    q, k, v = (t.randn(batch, heads, length, 64).to(kind) for _ in range(3))
    which = getattr(SDPBackend, backend)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(which):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    if not is_backward:
        return partial(attend, q, k, v)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    weight = t.randn(*q.shape).to(kind)
    return lambda: torch.autograd.grad(attend(*leaves), leaves, weight)


def _attentions() -> list[Operation]:
    return [
        Operation(
            f"attention {backend.partition('_')[0].lower()} {length} {part}",
            partial(_attention, backend=backend, length=length, is_backward=part == "backward"),
        )
        for backend in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
        for length in (1024, 4096, 8192)
        for part in ("forward", "backward")
    ]


def _losses() -> list[Operation]:
    found = [
        Operation(
            "nll_loss2d",
            lambda t: partial(F.nll_loss, t.image(2, 10), t.below(10, t.batch, t.side, t.side)),
            ("nn.NLLLoss", "nll_loss2d_forward_out_cuda_template"),
        ),
        Operation(
            "linear and cross_entropy backward",
            _linear_cross_entropy,
            (
                "nn.functional.linear_cross_entropy",
                "nn.functional.linear_cross_entropy.chunked",
                "nn.functional.linear_cross_entropy.chunked_none",
                "nn.LinearCrossEntropyLoss",
            ),
        ),
        Operation(
            "binary_cross_entropy_with_logits backward",
            lambda t: gradient(
                F.binary_cross_entropy_with_logits, t.randn(t.n), t.randn(t.n).sigmoid()
            ),
            ("nn.functional.binary_cross_entropy_with_logits",),
        ),
        Operation("ctc_loss backward", _ctc, ("nn.CTCLoss", "ctc_loss_backward_gpu")),
    ]
    for dims in (2, 3):
        entries = (
            "nn.functional.grid_sample",
            f"grid_sampler_{dims}d",
            f"grid_sampler_{dims}d_backward_cuda",
        )
        make = partial(_grid, dims=dims)
        found.append(Operation(f"grid_sample {dims}d backward", make, entries))
    return found


def _linear_cross_entropy(t: Inputs) -> Call:
    x, labels = t.randn(512, 64), t.below(1000, 512)
    return gradient(lambda w: F.cross_entropy(F.linear(x, w), labels), t.randn(1000, 64))


# ------------------------------------------------------------------ products, others


def _product(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[[Inputs], Call]:
    def make(t: Inputs) -> Call:
        return partial(function, *(t.randn(*shape) for shape in shapes))

    return make


def _sparse_bmm(t: Inputs) -> Call:
    dense = t.randn(4, 64, 64)
    sparse = (dense * (dense > 1)).to_sparse()
    return partial(torch.bmm, sparse, t.randn(4, 64, 64))


def _recurrent(t: Inputs, kind: str) -> Call:
    network = getattr(torch.nn, kind)(64, 64, 2, device=t.device)
    x = t.randn(32, t.batch, 64)
    weights = list(network.parameters())
    return lambda: torch.autograd.grad(network(x)[0].square().sum(), weights)


def _resize_quantized(t: Inputs) -> Call:
    quantized = torch.quantize_per_tensor(torch.ones(16, device=t.device), 0.1, 0, torch.qint8)
    return lambda: quantized.clone().resize_(16).int_repr()


def _products() -> list[Operation]:
    deep = 65536  # an inner dimension that cuBLAS splits
    op = Operation
    return [
        op("mm, split-K shape", _product(torch.mm, (64, deep), (deep, 64))),
        op("mm", _product(torch.mm, (512, 512), (512, 512))),
        op(
            "addmm, split-K shape",
            _product(torch.addmm, (64, 64), (64, deep), (deep, 64)),
            ("addmm", "addmm.decomposed"),
        ),
        op("linear", _product(F.linear, (64, deep), (64, deep)), ("nn.functional.linear",)),
        op("addr", _product(torch.addr, (512, 512), (512,), (512,)), ("addr",)),
        op("bmm, sparse", _sparse_bmm, ("bmm",)),
        op(
            "multi_dot backward",
            lambda t: gradient(
                lambda a, b, c: torch.linalg.multi_dot((a, b, c)),
                *(t.randn(128, 128) for _ in range(3)),
            ),
            ("linalg.multi_dot",),
        ),
        op("linalg.cond", _product(torch.linalg.cond, (64, 64)), ("linalg.cond",)),
        op("pinverse backward", _float(torch.pinverse, 64, 64, back=True), ("pinverse",)),
        op(
            "stft backward",
            _float(
                lambda x: torch.view_as_real(
                    torch.stft(x, 256, window=torch.ones_like(x[:256]), return_complex=True)
                ),
                2**14,
                back=True,
            ),
            ("stft",),
        ),
        op("LSTM, weight gradients", partial(_recurrent, kind="LSTM"), ()),
        op("GRU, weight gradients", partial(_recurrent, kind="GRU"), ()),
        op(
            "resize_ of a quantized tensor",
            _resize_quantized,
            ("Tensor.resize_", "quantized_resize_cpu_"),
        ),
    ]


#: Through each backend, at three lengths; on a GPU a piece of their own.
ATTENTION = _attentions()
OPERATIONS = [
    *_convolutions(),
    *_indexing(),
    *_scans(),
    *_resizing(),
    *_padding(),
    *_pooling(),
    *_losses(),
    *ATTENTION,
    *_products(),
]
