"""The contract that every setting keeps."""

from __future__ import annotations

import ctypes
import os
import subprocess
from unittest import mock

import pytest
import torch

from helpers import read_publicly, run_python
from seedscope import Snapshot, seeded, snapshot
from seedscope.settings import base, environment
from seedscope.settings.allowed import one_of
from seedscope.settings.registry import SETTINGS

OTHERS = {
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "PYTHONHASHSEED": "7",
    "TORCHINDUCTOR_DETERMINISTIC": "0",
    "cudnn.benchmark_limit": 3,
    "cudnn.depthwise_kernel": "cudnn",
    "deterministic_algorithms": 1,
    "matmul.precision": "high",
}
UNCHANGEABLE = {
    "mkldnn.allow_tf32": "needs an Intel GPU",
    "inductor.deterministic": "inductor is not loaded; see test_flags.py",
}


def test_the_settings_of_every_torch_are_there():
    assert {
        *("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "cudnn.deterministic", "cudnn.benchmark"),
        *("mkldnn.deterministic", "deterministic_algorithms", "fill_uninitialized_memory"),
        *("matmul.precision", "cudnn.allow_tf32", "attention.flash", "attention.math"),
        *("matmul.allow_fp16_reduced_precision_reduction", "attention.mem_efficient"),
        "matmul.allow_bf16_reduced_precision_reduction",
    } <= {*SETTINGS.names}


def other_value(name: str, value):
    if name in OTHERS:
        return OTHERS[name]
    if name.startswith("fp32_precision"):
        return "ieee" if value != "ieee" else "tf32"
    return tuple(not flag for flag in value) if isinstance(value, tuple) else not value


@pytest.fixture(params=SETTINGS._settings, ids=SETTINGS.names)
def setting(request):
    """A setting, restored after the test."""
    name = request.param.name
    if name in UNCHANGEABLE:
        pytest.skip(UNCHANGEABLE[name])
    outer = snapshot()
    yield request.param
    outer.restore()


def test_every_setting_reads_what_the_public_interface_says(setting):
    name, read, write, _ = setting
    assert read() == read_publicly(name)
    write(other_value(name, read()))
    assert read() == read_publicly(name)


def test_a_setting_that_the_block_changes_comes_back(setting):
    name, read, write, _ = setting
    outside = read()
    with seeded(1029):
        inside = read()
        write(other_value(name, inside))
        assert read() != inside
    assert read() == outside


def test_an_unusual_outer_value_comes_back(setting):
    name, read, write, _ = setting
    write(other_value(name, read()))
    before, outside = snapshot(), read()
    with seeded(1029):
        write(other_value(name, read()))
    assert read() == outside
    assert before.changed(snapshot()) == ()


def test_a_change_is_named(setting):
    name, read, write, _ = setting
    before = snapshot()
    write(other_value(name, read()))
    assert name in before.changed(snapshot())
    before.restore()
    assert before.changed(snapshot()) == ()


def test_a_setting_survives_saving(setting, tmp_path):
    name, read, write, _ = setting
    write(other_value(name, read()))
    saved = read()
    torch.save(snapshot().state_dict(), tmp_path / "state.pt")
    write(other_value(name, read()))
    Snapshot.from_state_dict(torch.load(tmp_path / "state.pt", weights_only=True)).restore()
    assert read() == saved


@pytest.mark.parametrize("value", [None, "", "5", "größe"])
def test_both_dictionaries_of_the_environment_agree(value):
    name = "PYTHONHASHSEED"
    outer, outside = snapshot(), os.environ.get(name)
    for data in (environment._data, None):
        environment.write_variable(name, value, data)
        assert environment.read_variable(name) == environment.read_variable(name, None) == value
        assert os.environ.get(name) == value
        child = subprocess.run(["printenv", name], capture_output=True, check=False)
        assert (child.stdout == b"" and child.returncode == 1) == (value is None)
        assert value is None or child.stdout.decode() == f"{value}\n"
        outer.restore()
        assert os.environ.get(name) == outside


def of_the_process(name):
    """The variable as C code and child processes see it."""
    getenv = ctypes.CDLL(None).getenv
    getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_char_p
    return getenv(name.encode())


@pytest.mark.parametrize("outside", [None, "7"])
@pytest.mark.parametrize("where", ["around", "inside"])
@pytest.mark.usefixtures("ways")
def test_another_mapping_in_place_of_os_environ_is_left_alone(outside, where, monkeypatch):
    name, original, mine = "PYTHONHASHSEED", os.environ, {"PYTHONHASHSEED": "3"}
    monkeypatch.delenv(name, raising=False)
    if outside is not None:
        monkeypatch.setenv(name, outside)
    before = {**original}
    with monkeypatch.context() as replaced:
        if where == "around":
            replaced.setattr(os, "environ", mine)
        with seeded(1029):
            assert of_the_process(name) == b"1029"
            assert original[name] == environment.read_variable(name) == "1029"
            replaced.setattr(os, "environ", mine)
            mine["MINE"] = "5"
            with seeded(5):
                assert of_the_process(name) == b"5"
        assert mine == {name: "3", "MINE": "5"}
        assert os.environ is mine
        assert of_the_process(name) == (outside and outside.encode())
        assert original == before
    assert os.environ is original


@pytest.mark.usefixtures("ways")
def test_a_patch_of_os_environ_inside_a_block_ends_with_what_was_before(monkeypatch):
    name = "PYTHONHASHSEED"
    monkeypatch.setenv(name, "7")
    before = {**os.environ}
    with seeded(1029):
        with mock.patch.dict(os.environ, {name: "5", "MINE": "1"}, clear=True):
            assert of_the_process(name) == b"5"
            with seeded(6):
                assert of_the_process(name) == b"6"
            assert os.environ == {name: "5", "MINE": "1"}
        assert of_the_process(name) == b"1029"
    assert of_the_process(name) == b"7"
    assert os.environ == before


def test_the_toolkit_governs_the_process_beside_another_mapping_in_place_of_os_environ():
    run_python(
        """
import os, torch
original, os.environ = os.environ, {"PYTHONHASHSEED": "3"}
before = dict(original)
from seedscope import seeded
with seeded(1029):
    assert original["PYTHONHASHSEED"] == "1029"
assert os.environ == {"PYTHONHASHSEED": "3"} and original == before
"""
    )


def test_only_settings_that_are_marked_change_others(setting):
    name, read, write, _ = setting
    before = SETTINGS.capture()
    write(other_value(name, read()))
    now = zip(SETTINGS.names, before, SETTINGS.capture(), strict=True)
    changed = {other for other, was, is_now in now if was != is_now and other != name}
    entangled = {o.name for o in SETTINGS._settings if isinstance(o, base.Entangled)}
    # Until inductor is loaded, its flag is the variable, and writing the flag does nothing.
    assert changed <= (entangled if name in entangled else {"inductor.deterministic"})


def test_a_setting_that_cannot_be_written_stops_no_other():
    values = {"a": 1, "b": 2, "c": 3}

    def refuse(value):
        raise OSError("read only")

    group = base.Settings(
        base.Setting(
            name,
            lambda name=name: values[name],
            refuse if name == "b" else _put(values, name),
            bool,
        )
        for name in values
    )
    state = group.capture()
    values.update(a=10, b=20, c=30)
    with pytest.raises(RuntimeError, match="could not write b: read only"):
        group.restore(state)
    assert values == {"a": 1, "b": 20, "c": 3}


def _put(values, name):
    return lambda value: values.__setitem__(name, value)


def test_an_error_that_a_signal_handler_raises_in_a_write_reaches_the_caller():
    value, errors = [1], [TimeoutError("alarm")]

    def write(new):
        if errors:
            raise errors.pop()
        value[0] = new

    settings = base.Settings([base.Setting("x", lambda: value[0], write, one_of(1, 2))])
    with pytest.raises(TimeoutError, match="alarm"):
        settings.restore([2])
    assert value == [2]
