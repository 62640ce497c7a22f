"""What the schema of an operator says of its arguments and results, found once for each."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch

# Operators that make memory without writing to it. `resize_` may add such memory.
_EMPTY = (
    *("empty", "empty_like", "empty_strided", "empty_permuted", "empty_quantized"),
    *("new_empty", "new_empty_strided"),
    *("_empty_affine_quantized", "_empty_per_channel_affine_quantized"),
    *("resize_", "resize_as_", "_resize_output_", "resize", "resize_as", "_resize_output"),
)

# What `torch.tensor(...)` calls with the values that it has taken from Python.
_ENTRIES = ("aten::lift_fresh", "aten::lift")

# Results that torch may leave unwritten in part: workspaces, and the state of a generator that was
# not needed. What reads them is compared. The first was found by running torch's samples twice,
# over memory of other contents (tests/diagnosis/test_operator_samples.py); the others run on GPUs,
# and are by torch's native_functions.yaml and the sources of the kernels.
_SCRATCH: dict[str, tuple[int, ...]] = {
    "aten::_ctc_loss": (1,),
    "aten::_cudnn_rnn": (3, 4),
    "aten::cudnn_batch_norm": (3,),
    "aten::_scaled_dot_product_flash_attention": (6, 7),
    "aten::_scaled_dot_product_cudnn_attention": (6, 7),
    "aten::_scaled_dot_product_efficient_attention": (2, 3),
    "aten::_flash_attention_forward": (2, 3),
    "aten::_efficient_attention_forward": (2, 3),
}

# Operators that write all of their first argument, and do not read it.
_FILLS = (
    *("copy_", "zero_", "fill_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_"),
    *("cauchy_", "geometric_", "log_normal_"),
)

# Operators that only move bits: a copy of unwritten memory is unwritten memory, and memory that was
# unwritten is so, but for a part, after one that writes to a part.
_COPIES = (
    *("copy_", "clone", "_to_copy", "index_put_", "_index_put_impl_", "index_copy_", "scatter_"),
    *("masked_scatter_", "masked_fill_", "index_fill_", "put_"),
)

# Operators that write to arguments although their schemas do not say so.
_WRITES = {
    "aten::native_batch_norm": ("running_mean", "running_var"),
    "aten::cudnn_batch_norm": ("running_mean", "running_var"),
    "aten::miopen_batch_norm": ("running_mean", "running_var"),
    "aten::batch_norm_update_stats": ("running_mean", "running_var"),
}


class Operator(NamedTuple):
    """What is known of an operator.

    Attributes:
        name: such as `aten.add_.Tensor`.
        written: the positions and the names of the arguments that it writes to.
        unread: those of `written` whose content it does not read, such as `out=`.
        is_empty: whether it leaves its results unwritten.
        scratch: the numbers of the results that it may leave partly unwritten.
        is_copy: whether it only moves bits, so that what was unwritten stays so, all or in part.
        is_view: whether it only returns views of its arguments, and so reads nothing.
        is_entry: whether its argument is a value of Python that becomes a tensor.
        is_random: whether it draws from a generator.
        is_deferred: whether its results are written elsewhere: later, or in what they now share.
        non_blocking: the position and the name of an argument that, if true, has the same effect.
        arguments: the names and the defaults of the arguments.
    """

    name: str
    written: tuple[int | str, ...] = ()
    unread: tuple[int | str, ...] = ()
    is_empty: bool = False
    scratch: tuple[int, ...] = ()
    is_copy: bool = False
    is_view: bool = False
    is_entry: bool = False
    is_random: bool = False
    is_deferred: bool = False
    non_blocking: tuple[int | str, ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()


def operator_of(function: Any) -> Operator:
    """Return what is known of an operator, or of a higher-order one, which has no schema."""
    return _from_schema(function) if hasattr(function, "_schema") else Operator(str(function))


@cache
def _from_schema(function: Any) -> Operator:
    schema = function._schema
    name = schema.name
    short = name.partition("::")[2]
    is_view = all(one.alias_info and not one.alias_info.is_write for one in schema.returns)
    written: list[int | str] = []
    unread: list[int | str] = []
    for position, argument in enumerate(schema.arguments):
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        if is_written or argument.name in _WRITES.get(name, ()):
            keys = [argument.name] if argument.kwarg_only else [position, argument.name]
            written += keys
            unread += keys * (argument.is_out or (position == 0 and short in _FILLS))
    return Operator(
        name=str(function),
        written=tuple(written),
        unread=tuple(unread),
        is_copy=short in _COPIES,
        is_empty=short in _EMPTY,
        scratch=_SCRATCH.get(name, ()),
        is_view=is_view and bool(schema.returns) and name not in _ENTRIES,
        is_entry=name in _ENTRIES,
        is_random=torch.Tag.nondeterministic_seeded in function.tags,
        is_deferred=_is_deferred(name),
        non_blocking=_named(schema, "non_blocking"),
        arguments=tuple((one.name, one.default_value) for one in schema.arguments),
    )


def _is_deferred(name: str) -> bool:
    is_collective = name.startswith(("c10d::", "_c10d_functional")) and "wait" not in name
    return is_collective or name.startswith("aten::set_")


def _named(schema: Any, name: str) -> tuple[int | str, ...]:
    names = [argument.name for argument in schema.arguments]
    return (names.index(name), name) if name in names else ()
