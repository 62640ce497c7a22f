"""The precision of products: both interfaces of torch see it come back."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import read_publicly
from seedscope import Snapshot, seeded, snapshot
from seedscope.settings import precision
from seedscope.settings.registry import SETTINGS

new_api = pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="needs torch 2.9 with fp32_precision"
)


def _set(holder, name):
    return lambda value: setattr(holder, name, value)


OLD_WRITES = [
    (torch.set_float32_matmul_precision, ["highest", "high", "medium"]),
    (_set(torch.backends.cuda.matmul, "allow_tf32"), [True, False]),
    (_set(torch.backends.cudnn, "allow_tf32"), [True, False]),
]
NEW_WRITES = (
    []
    if not hasattr(torch.backends, "fp32_precision")
    else [
        (_set(torch.backends, "fp32_precision"), ["none", "ieee", "tf32"]),
        (_set(torch.backends.cudnn, "fp32_precision"), ["none", "ieee", "tf32"]),
        (_set(torch.backends.cuda.matmul, "fp32_precision"), ["none", "ieee", "tf32"]),
        (_set(torch.backends.cudnn.conv, "fp32_precision"), ["none", "ieee", "tf32"]),
        (_set(torch.backends.cudnn.rnn, "fp32_precision"), ["none", "ieee", "tf32"]),
        (_set(torch.backends.mkldnn, "fp32_precision"), ["none", "ieee", "bf16"]),
        (_set(torch.backends.mkldnn.matmul, "fp32_precision"), ["none", "ieee", "tf32", "bf16"]),
        (_set(torch.backends.mkldnn.conv, "fp32_precision"), ["none", "ieee", "bf16"]),
    ]
)
WRITES = st.lists(
    st.one_of(*(st.tuples(st.just(w), st.sampled_from(v)) for w, v in [*OLD_WRITES, *NEW_WRITES])),
    max_size=5,
)


def every_public_read() -> dict[str, object]:
    """Read both interfaces as a user does; a read that raises counts as a value."""

    def attempt(read):
        try:
            return read()
        except RuntimeError:
            return "raises"

    old = {
        "matmul": torch.get_float32_matmul_precision,
        "cuda tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
        "cudnn tf32": lambda: torch.backends.cudnn.allow_tf32,
    }
    names = [name for name in SETTINGS.names if name.startswith("fp32_precision")]
    return {
        **{name: attempt(read) for name, read in old.items()},
        **{name: read_publicly(name) for name in names},
    }


@new_api
@settings(max_examples=300)
@given(WRITES, WRITES)
def test_precision_comes_back_as_both_interfaces_see_it(outside, inside):
    outer = snapshot()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for write, value in outside:
                write(value)
            before = every_public_read()
            with seeded(1029):
                assert every_public_read() == before, "a scope changes no precision"
                for write, value in inside:
                    write(value)
            assert every_public_read() == before
        finally:
            outer.restore()


@new_api
def test_a_precision_that_was_inherited_is_inherited_again():
    outer = snapshot()
    torch.backends.cudnn.fp32_precision = "tf32"
    with seeded(1029):
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    torch.backends.cudnn.fp32_precision = "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    outer.restore()


@new_api
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("mkldnn", ["ieee", "tf32", "bf16"])
@pytest.mark.parametrize("cuda", ["ieee", "tf32"])
def test_the_old_precision_is_known_where_reading_it_raises(precision, mkldnn, cuda):
    outer = snapshot()
    torch.set_float32_matmul_precision(precision)
    torch.backends.mkldnn.matmul.fp32_precision = mkldnn
    torch.backends.cuda.matmul.fp32_precision = cuda
    settings = snapshot().state_dict()["settings"]
    outer.restore()
    assert settings["matmul.precision"] == precision
    assert settings["fp32_precision.mkldnn.matmul"] == mkldnn
    assert settings["fp32_precision.cuda.matmul"] == cuda


@new_api
@pytest.mark.parametrize("general", ["ieee", "tf32", "bf16"])
def test_each_operation_inherits_again_after_a_block(general):
    outer = snapshot()
    operations = [
        *(torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn),
        torch.backends.cuda.matmul,
    ]
    torch.backends.fp32_precision = "tf32"
    with seeded(1029):
        for operation in operations:
            operation.fp32_precision = "ieee"
        torch.backends.fp32_precision = "bf16"
    torch.backends.fp32_precision = general
    seen = [operation.fp32_precision for operation in operations]
    outer.restore()
    # cuBLAS has no bf16 for float32, and then torch inherits nothing.
    assert seen == [general] * 3 + ["none" if general == "bf16" else general]


def test_values_of_a_torch_without_the_new_interface_are_settled_as_they_are(monkeypatch):
    monkeypatch.setattr(precision, "read_precision", None)
    values = {"matmul.precision": "high", "cudnn.allow_tf32": None}
    assert precision.settled(values) == values


@new_api
def test_a_saved_precision_is_settled_as_torch_shows_it():
    outer, state = snapshot(), snapshot().state_dict()
    names = "fp32_precision.{}".format
    state["settings"] |= {
        names("generic.all"): "bf16",
        names("cuda.all"): "none",
        names("mkldnn.all"): "none",
        names("mkldnn.conv"): "none",
        names("mkldnn.rnn"): "ieee",
        names("cuda.conv"): "tf32",
        names("cuda.rnn"): "ieee",
    }
    moment = Snapshot.from_state_dict(state)
    moment.restore()
    now = snapshot()
    outer.restore()
    assert moment == now
    settings = now.state_dict()["settings"]
    assert settings[names("mkldnn.conv")] == settings[names("mkldnn.all")] == "bf16"
    assert settings[names("mkldnn.rnn")] == "ieee"
    assert settings[names("cuda.all")] == "none"
    assert settings["cudnn.allow_tf32"] is None


@new_api
@pytest.mark.parametrize("general", ["ieee", "tf32"])
def test_products_that_the_block_sets_by_the_old_interface_inherit_again(general):
    outer = snapshot()
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    torch.set_float32_matmul_precision("high")
    for operation in (matmul, torch.backends.mkldnn.matmul, torch.backends.cudnn, conv):
        operation.fp32_precision = "none"
    torch.backends.fp32_precision = "tf32"
    with seeded(1029):
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    torch.backends.fp32_precision = general
    seen = [o.fp32_precision for o in (matmul, torch.backends.mkldnn.matmul, conv)]
    outer.restore()
    assert seen == [general] * 3


@new_api
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_a_saved_flag_that_torch_would_know_is_settled(precision):
    outer, state = snapshot(), snapshot().state_dict()
    operations = ("fp32_precision.cuda.conv", "fp32_precision.cuda.rnn")
    state["settings"] |= {**dict.fromkeys(operations, precision), "cudnn.allow_tf32": None}
    moment = Snapshot.from_state_dict(state)
    moment.restore()
    now = snapshot()
    outer.restore()
    assert moment.state_dict()["settings"]["cudnn.allow_tf32"] == (precision == "tf32")
    assert moment == now


def test_a_read_that_fails_once_is_no_refusal_of_torch():
    errors = [RuntimeError("a worker has died")]

    def read():
        if errors:
            raise errors.pop()
        return True

    with pytest.raises(RuntimeError, match="worker"):
        precision._unless_refused(read)
    assert precision._unless_refused(read) is True
    errors += [RuntimeError("refused")] * 2
    assert precision._unless_refused(read) is None
