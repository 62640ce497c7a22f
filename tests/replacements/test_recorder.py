"""Which operations a replacement calls: none that torch cannot repeat."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from calls import in_dtype
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_formulas import OPERATIONS, drawn
from torch.utils._python_dispatch import TorchDispatchMode

from seedscope import seeded
from seedscope.replacements import separable

# Each of these repeats, on a GPU too, with deterministic algorithms on.
_BY_REASON = {
    "they make a tensor, view it, or move its elements": """
        _to_copy alias arange as_strided cat clone constant_pad_nd copy_ detach diagonal expand
        fill_ flip full full_like movedim narrow new_full new_zeros ones ones_like permute
        reshape select slice split squeeze stack t transpose unbind unsqueeze view zero_ zeros
        zeros_like _unsafe_view _reshape_alias empty empty_like new_empty empty_strided
        scalar_tensor lift_fresh promote_types
    """,
    "each element by itself": """
        abs add add_ bitwise_and bitwise_and_ bitwise_not bitwise_or clamp div eq exp floor fmod
        ge gt isinf isnan le logical_and lt masked_fill masked_fill_ mul mul_ ne nan_to_num neg
        remainder round rsub sub where _local_scalar_dense
    """,
    "they read elements": "gather index index_select nonzero",
    "their terms have the order of the memory": "all any cumsum equal max sum",
    "the sort is stable": "searchsorted sort",
    "the places are sorted, and their terms added in that order": "index_put index_put_",
    "the largest of integers is the same in each order": "scatter_reduce_",
    "a forward, which adds in the order of its windows": """
        _adaptive_avg_pool2d _ctc_loss avg_pool2d mean upsample_linear1d upsample_bicubic2d
        _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    """,
}
ALLOWED = {name for names in _BY_REASON.values() for name in names.split()}


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        self.names.add(name)
        # On a GPU a cumulative sum of integers repeats in every version, of floats in newer ones.
        assert name != "cumsum" or not args[0].is_floating_point()
        if name == "scatter_reduce_":
            assert args[0].dtype == torch.long
            assert args[4] == "amax"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: one.operation[6:])
@settings(max_examples=10, deadline=None, suppress_health_check=[*HealthCheck], derandomize=True)
@given(data=st.data())
def test_a_replacement_calls_only_operations_that_repeat(one: Any, data: Any) -> None:
    args = in_dtype(drawn(one, data), torch.float32)
    separable._tables.clear()  # so that they are read again
    with seeded(1, replacements=False), Recorder() as recorder:
        one.function(*args)
    assert recorder.names <= ALLOWED
