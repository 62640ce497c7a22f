"""Each operation of which torch itself says that it does not repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedscope.replacements.built_in import BUILT_IN

ROOT = Path(__file__).parents[2]
# The call sites of `alertNotDeterministic` in torch 2.11.0+cu130.
LISTS = json.loads((ROOT / "benchmarks" / "nondeterminism_lists.json").read_text())["alerts"]
ENTRIES = [(device, name) for device in ("cuda", "cpu") for name in LISTS[device]]

NEED_NONE = {
    "scatter_cuda_": "with deterministic algorithms torch writes by index_put instead",
}
# docs/replacements.md names each.
NOT_YET = {
    "_bincount_cuda": "`bincount` with weights",
    "_histc_cuda with floating point input": "`histc`",
    "index_reduce_cuda": "`index_reduce`",
    "median CUDA with indices output": "`median` with indices",
    "scatter_reduce_cuda_kernel": "`scatter_reduce`",
    "scatter_reduce_cuda_prod_": "`scatter_reduce`",
    "embedding_bag_backward_cuda_max": "`embedding_bag` in max mode",
    "quantized_resize_cpu_": "`resize_` of a quantized tensor",
}


@pytest.mark.parametrize(("device", "alert"), ENTRIES)
def test_each_alert_of_torch_has_a_replacement_or_a_reason(device, alert):
    found = [one for one in BUILT_IN if one.alert and alert.startswith(one.alert)]
    replaced = [one for one in found if device in one.devices]
    assert bool(replaced) + (alert in NEED_NONE) + (alert in NOT_YET) == 1
    assert len(replaced) <= 1


def test_the_document_names_what_is_not_replaced_yet():
    text = (ROOT / "docs" / "replacements.md").read_text()
    _, _, section = text.partition("## Not replaced yet")
    assert section
    for name in {*NOT_YET.values(), "RoI"}:
        assert name in section


def test_each_replacement_answers_an_alert_or_a_kernel_that_does_not_tell():
    listed = {name for _, name in ENTRIES}
    for one in BUILT_IN:
        is_listed = any(name.startswith(one.alert) for name in listed)
        assert is_listed or one.is_silent or one.operation in ELSEWHERE, one.operation


ELSEWHERE = {
    "aten::reflection_pad2d_backward": "the documents of use_deterministic_algorithms name it",
}
