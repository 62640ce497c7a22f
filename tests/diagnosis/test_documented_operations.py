"""Operations that torch's lists call nondeterministic: each is named, or repeats.

On a CPU few of them differ. The lists are those of `python -m benchmarks op_atlas`.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.items import Scale
from benchmarks.operations.base import Inputs
from benchmarks.operations.catalogue import OPERATIONS
from seedscope import diagnose, seeded
from seedscope.diagnosis.causes import OPERATION
from seedscope.diagnosis.contents import digest_of, digests
from seedscope.support.digests import digest

LISTED = [one for one in OPERATIONS if one.entries and "empty" not in one.name]
on_each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@on_each_device
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operation", LISTED, ids=lambda one: one.name)
def test_an_operation_that_does_not_repeat_is_the_cause(operation, device):
    with seeded(1, deterministic=False):
        call = operation.make(Inputs(Scale(device, small=device == "cpu")))
        call()
    report = diagnose(call, seed=1029, runs=5)
    if report.reproducible:
        if device == "cuda":  # on a CPU with other work, threads race by chance
            with seeded(1029, deterministic=False):
                assert len({digest(call()) for _ in range(10)}) == 1
    else:
        assert report.cause == OPERATION, report
        assert report.first_divergence.inputs_equal
        assert report.first_divergence.operation.startswith("aten.")
        assert report.remedies


@pytest.mark.cuda
def test_a_training_step_on_a_gpu_is_traced_with_its_backward():
    with seeded(1):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout())
        model.to("cuda")
        values = torch.randn(4, 3, 16, 16, device="cuda")

    def step(model, values):
        model(values).square().mean().backward()
        return model

    report = diagnose(step, model, values, seed=3, restore=[model], deterministic=True)
    assert report.reproducible, report
    report = diagnose(step, model, values, seed=3, deterministic=True)
    assert report.cause == "state left from the run before"
    assert "model.1" in report.because


@pytest.mark.cuda
def test_the_digest_of_a_tensor_on_a_gpu_stays_there():
    x = torch.randn(3 * 2**22, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        [found] = digests(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.value.device.type == "cuda"
    assert digest_of([x]) != digest_of([x.flip(0)])
