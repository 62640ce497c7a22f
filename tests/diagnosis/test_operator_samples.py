"""No difference is found in torch's own samples, run twice over memory of other contents."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from traced import traces

from seedscope import seeded
from seedscope.diagnosis.call import Call, leaves
from seedscope.diagnosis.compare import first_difference
from seedscope.diagnosis.contents import digest_of
from seedscope.diagnosis.operators import operator_of

DTYPES = (torch.float32, torch.int64, torch.complex64)
# They return memory that nothing has written.
EMPTY = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")


@cache
def operations() -> list[Any]:
    # torch's tests forbid the process to assign torch's flags, when they are imported.
    with mock.patch.object(torch.backends, "disable_global_flags"):
        from torch.testing._internal.common_methods_invocations import op_db
    return [op for op in op_db if op.name not in EMPTY and "jiterator" not in op.name]


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        copy = value.detach().clone()
        return copy.requires_grad_() if value.requires_grad else copy
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    return value


def calls(op: Any, dtype: torch.dtype, count: int) -> list[Any]:
    """Return a call for each sample, which runs the backward too."""
    with_grad = dtype.is_floating_point and op.supports_autograd
    try:
        with seeded(1):
            samples = [*islice(op.sample_inputs("cpu", dtype, requires_grad=with_grad), count)]
    except (RuntimeError, NotImplementedError, ImportError):
        return []  # one that this build of torch cannot make

    def call(sample: Any) -> None:
        args, kwargs = copied([sample.input, *sample.args]), copied(sample.kwargs)
        result = op(*args, **kwargs)
        outputs = [o for o in leaves(result, Tensor) if o.requires_grad and o.is_floating_point()]
        inputs = [i for i in leaves((args, kwargs), Tensor) if i.requires_grad]
        if outputs and inputs:
            torch.autograd.grad([o.sum() for o in outputs], inputs, allow_unused=True)

    return [lambda sample=sample: call(sample) for sample in samples]


def runs(call: Any) -> bool:
    """Return whether this build of torch runs a sample at all, under a mode that does nothing."""
    try:
        with seeded(3, deterministic=False), PassingBy():
            call()
    except (RuntimeError, NotImplementedError, ImportError):
        return False
    return True


class PassingBy(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def differences(op: Any, count: int) -> list[str]:
    """Return the differences between two runs of the samples; each must be traced."""
    found = []
    for dtype in DTYPES:
        for call in calls(op, dtype, count) if dtype in op.dtypes else ():
            if not runs(call):
                continue
            one, other = traces(call)
            assert len(one), f"{op.name}, {dtype}: nothing was traced"
            difference = first_difference(one, other)
            if difference is not None:
                name = "its end" if difference.first is None else one.operation(difference.first)
                found.append(f"{op.name}, {dtype}: {name}, {difference}")
    return found


class Writes(TorchDispatchMode):
    """Notes the operations that write to what neither their schemas nor `operators` say."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        call = Call(operator_of(func), func, args, kwargs)
        written = [id(one) for one in call.written()]
        read = [one for one in call.read() if id(one) not in written]
        before = [digest_of([one]) for one in read]
        result = call.run()
        if [digest_of([one]) for one in read] != before:
            self.found.add(call.operator.name)
        return result


pytestmark = pytest.mark.filterwarnings("ignore")


# Those whose results or arguments torch leaves unwritten in part, or that copy such memory.
TRICKY = (
    *("nn.functional.pad", "nn.functional.rrelu", "nn.functional.ctc_loss", "cat", "index_put"),
    *("nn.functional.batch_norm", "nn.functional.dropout", "nn.functional.embedding_bag"),
    *("nn.functional.scaled_dot_product_attention", "linalg.svd", "sort", "sparse.sampled_addmm"),
)


def test_no_difference_is_found_where_memory_stays_unwritten():
    chosen = [op for op in operations() if op.name in TRICKY]
    assert len(chosen) >= len(TRICKY)
    found = [text for op in chosen for text in differences(op, 12)]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_difference_is_found_in_many_samples_of_each_operation(part):
    found = [text for op in operations()[part::4] for text in differences(op, 30)]
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_no_operation_writes_to_more_than_is_known():
    with Writes() as writes:
        for op in operations():
            for dtype in DTYPES:
                for call in calls(op, dtype, 30) if dtype in op.dtypes else ():
                    with suppress(RuntimeError, NotImplementedError, ImportError), seeded(3):
                        call()
    assert not writes.found
