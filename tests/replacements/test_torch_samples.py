"""The sample inputs of torch's own tests, forward and backward, beside torch's kernels."""

from __future__ import annotations

import importlib
import itertools
import warnings
from typing import Any
from unittest import mock

import pytest
import torch

from seedscope import seeded, snapshot
from seedscope.replacements.agreement import tensors

pytest.importorskip("expecttest", reason="torch's own tests need expecttest")

NAMES = """
    nn.functional.adaptive_avg_pool1d nn.functional.adaptive_avg_pool2d
    nn.functional.adaptive_avg_pool3d nn.functional.adaptive_max_pool1d
    nn.functional.adaptive_max_pool2d nn.functional.adaptive_max_pool3d nn.functional.avg_pool3d
    nn.functional.max_pool3d nn.functional.fractional_max_pool2d
    nn.functional.fractional_max_pool3d nn.functional.max_unpool1d nn.functional.max_unpool2d
    nn.functional.max_unpool3d nn.functional.interpolate nn.functional.upsample_bilinear
    _upsample_bilinear2d_aa nn.functional.pad nn.functional.grid_sample grid_sampler_2d
    grid_sampler_3d nn.functional.nll_loss nn.functional.cross_entropy nn.functional.ctc_loss
    stft put
"""
MODULES = """
    AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool2d AdaptiveMaxPool3d AvgPool3d MaxPool3d
    FractionalMaxPool2d FractionalMaxPool3d NLLLoss CrossEntropyLoss CTCLoss ReflectionPad1d
    ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d
"""


@pytest.fixture(autouse=True)
def draws_stay_inside():
    """Restore the sources, from which torch draws its samples."""
    before = snapshot()
    # torch's tests forbid the process to assign torch's flags, when they are imported.
    with mock.patch.object(torch.backends, "disable_global_flags"):
        importlib.import_module("torch.testing._internal.common_utils")
    yield
    before.restore()


def op_infos() -> list[Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    names = NAMES.split()
    return [one for one in op_db if one.name in names and one.supports_autograd]


def module_infos() -> list[Any]:
    from torch.testing._internal.common_modules import module_db

    names = MODULES.split()
    return [one for one in module_db if one.module_cls.__name__ in names]


def differentiated(function: Any, inputs: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the results of a call, and the gradient of each input."""
    given = [*tensors(inputs), *args, *kwargs.values()]
    leaves = [x for x in given if isinstance(x, torch.Tensor) and x.requires_grad]
    torch.manual_seed(3)  # fractional pools draw their windows
    results = [x for x in tensors(function(inputs, *args, **kwargs)) if x.requires_grad]
    if not results or not leaves:
        return results
    weights = [torch.linspace(0.5, 1.5, x.numel()).view(x.shape).to(x.dtype) for x in results]
    found = torch.autograd.grad(results, leaves, weights, allow_unused=True)
    return [*results, *(x for x in found if x is not None)]


def compare(function: Any, inputs: Any, args: Any, kwargs: Any) -> dict[str, int]:
    """Assert that a strict call agrees with torch's kernels; return what was replaced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of old arguments
        expected = differentiated(function, inputs, args, kwargs)
        with seeded(1029) as scope:
            found = differentiated(function, inputs, args, kwargs)
            again = differentiated(function, inputs, args, kwargs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, equal_nan=True)
    torch.testing.assert_close(found, again, rtol=0, atol=0, equal_nan=True)
    return scope.replaced


# All of them take two minutes.
some_and_all = pytest.mark.parametrize("most", [1, pytest.param(None, marks=pytest.mark.slow)])


@some_and_all
def test_samples_of_operations_agree(most, raising_cpu):
    names: set[str] = set()
    count = 0
    for one in op_infos():
        samples = one.sample_inputs("cpu", torch.float64, requires_grad=True)
        for sample in itertools.islice(samples, most):
            count += 1
            names.update(compare(one.op, sample.input, sample.args, sample.kwargs))
    assert count > (20 if most else 1000)
    assert len({name.partition(" ")[0] for name in names}) > (10 if most else 20)


@some_and_all
def test_samples_of_modules_agree(most, raising_cpu):
    names: set[str] = set()
    for one in module_infos():
        samples = one.module_inputs_func(
            one, device="cpu", dtype=torch.float64, requires_grad=True, training=True
        )
        for sample in itertools.islice(samples, most):
            made, given = sample.constructor_input, sample.forward_input
            module = one.module_cls(*made.args, **made.kwargs).double()
            inputs, *args = given.args
            names.update(compare(module, inputs, args, given.kwargs))
    assert len({name.partition(" ")[0] for name in names}) > 12
