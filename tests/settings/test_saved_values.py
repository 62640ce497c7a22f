"""A saved value that a setting cannot have is refused before anything is restored."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings

import pytest
import torch

from damage import ODD_VALUES
from seedscope import Snapshot, snapshot
from seedscope.settings import onednn
from seedscope.settings.allowed import like
from seedscope.settings.base import Setting
from seedscope.settings.registry import SETTINGS

# What torch shows only once hardware or inductor is there: see test_every_setting.py.
SHOWN_LATER = {"mkldnn.allow_tf32", "inductor.deterministic"}
PRECISIONS = ["none", "ieee", "tf32", "bf16", "highest", "high", "medium"]
VALUES = [
    *(True, False, None, 0, 1, 2, 3, 7, -1, 2**31, 1.0, *PRECISIONS, "auto", "cudnn", "native"),
    *("7", "größe", ":4096:8", "\udc80", "a=b", "\0", "\ud800", b"7"),
    *((True, True), (False, True), (False, False), (True, False), (1, 1), (0, 1), (True,), ()),
    *([True, True], (True, True, True), (None, None), ("ieee", "tf32"), *ODD_VALUES),
    *(torch.ones(3), torch.tensor(True), torch.ones(2, 2).to_sparse()),
]


def with_settings(**changes):
    state = snapshot().state_dict()
    return {**state, "settings": {**state["settings"], **changes}}


WRONG = {
    "PYTHONHASHSEED": [
        "a\0b",
        "\ud800",
        b"7",
        7,
        True,
        "abc",
        "-1",
        "1e3",
        str(2**32),
        "9" * 5000,
        "\u0663",
    ],
    "CUBLAS_WORKSPACE_CONFIG": ["\0", 1, ["a"]],
    "cudnn.benchmark": [1, 0, None, "True", 1.0, torch.tensor(True)],
    "mkldnn.deterministic": [1, None],
    "mkldnn.allow_tf32": [1, "tf32"],
    "deterministic_algorithms": [7, 3, -1, True, False, None, 1.0, "warn"],
    "fill_uninitialized_memory": [1, None],
    "inductor.deterministic": [1, None, "1"],
    "matmul.precision": ["", "HIGH", "tf32", None, 1],
    "cudnn.allow_tf32": [1, "tf32"],
    "matmul.allow_bf16_reduced_precision_reduction": [
        *(True, None, (True,), (True, False), (1, 1), (0, 1), [True, True], (True, True, True))
    ],
    "attention.flash": [1, None],
    "attention.math_reduced_precision": [1, None],
    "fp32_precision.cuda.conv": ["bf16", "", "x", None, True],
    "fp32_precision.generic.all": ["", "x", "highest"],
    "fp32_precision.mkldnn.rnn": ["x", None],
    "cudnn.depthwise_kernel": ["", "x", None, 1],
    "cudnn.benchmark_limit": [-1, True, 2**31, 1.0, None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_by_the_name_of_its_setting(name, value):
    if name not in SETTINGS.names:
        pytest.skip("this torch has no such setting")
    before = snapshot()
    with pytest.raises(ValueError, match=f"as the setting {name}, which cannot have this value"):
        Snapshot.from_state_dict(with_settings(**{name: value}))
    assert snapshot() == before


@pytest.mark.parametrize("value", [None, "", "0", "007", str(2**32 - 1), "random"])
def test_every_hash_seed_with_which_python_starts_is_loaded(value):
    state = with_settings()
    state["settings"]["PYTHONHASHSEED"] = value
    assert Snapshot.from_state_dict(state).state_dict()["settings"]["PYTHONHASHSEED"] == value
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONHASHSEED"}
    environment |= {} if value is None else {"PYTHONHASHSEED": value}
    subprocess.run([sys.executable, "-S", "-c", ""], env=environment, check=True, timeout=60)


@pytest.mark.parametrize("name", [5, None, True, ("cudnn.benchmark",)])
def test_a_name_that_is_no_text_is_refused(name):
    state = with_settings()
    state["settings"][name] = True
    with pytest.raises(ValueError, match="as the name of a setting"):
        Snapshot.from_state_dict(state)


def test_a_flag_that_only_its_present_value_describes_takes_values_like_it():
    values = (True, False, 0, 7, -1, 2**31, 1.0, "a", None)
    flags, counts = [True, False], [0, 7]
    for present, expected in (True, flags), (10, counts), ("b", ["a"]), (None, [*flags, None]):
        assert str([*filter(like(present), values)]) == str(expected)


def test_a_flag_that_torch_leaves_open_is_left_alone():
    [flag] = [s for s in SETTINGS._settings if s.name == "mkldnn.allow_tf32"]
    before = flag.read()
    flag.write(None)
    assert flag.read() == before


def test_a_flag_of_an_intel_gpu_is_written_once_it_is_known():
    written = []
    flag = onednn._unless_open(Setting("mkldnn.x", lambda: None, written.append, like(True)))
    for value in (None, True, False):
        assert flag.allows(value)
        flag.write(value)
    assert written == [True, False]


def test_every_present_value_is_allowed():
    state = snapshot()._states[SETTINGS]
    assert SETTINGS.decode(SETTINGS.encode(state)) == state


def test_a_setting_that_another_torch_did_not_save_has_its_present_value():
    outer = snapshot()
    torch.backends.cudnn.benchmark = True
    state = with_settings()
    del state["settings"]["cudnn.benchmark"]
    assert Snapshot.from_state_dict(state) == snapshot()
    outer.restore()


def restored_or_refused(state, outer) -> bool:
    """Return whether the settings were taken; then they are there after a restore."""
    try:
        moment = Snapshot.from_state_dict(state)
    except ValueError:
        assert snapshot() == outer
        return False
    moment.restore()
    assert set(moment.changed(snapshot())) <= SHOWN_LATER, state["settings"]
    outer.restore()
    assert set(outer.changed(snapshot())) <= SHOWN_LATER
    return True


def values_fuzzed(count, seed):
    outer, state, taken = snapshot(), snapshot().state_dict(), 0
    chance = random.Random(seed)
    allowed = {s.name: [v for v in VALUES if s.allows(v)] for s in SETTINGS._settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of TF32 without an Intel GPU
        for number in range(count):
            names = chance.sample(SETTINGS.names, chance.randint(1, len(SETTINGS.names)))
            odd = chance.sample(names, chance.choice([0, 0, 0, 1]))
            values = {n: chance.choice(VALUES if n in odd else allowed[n]) for n in names}
            try:
                state = {
                    **state,
                    "settings": {**SETTINGS.encode(outer._states[SETTINGS]), **values},
                }
                taken += restored_or_refused(state, outer)
            except BaseException as error:
                error.add_note(f"input {number} of seed {seed}: {values!r}")
                raise
    assert taken > count / 2


def test_a_value_is_refused_or_can_be_restored():
    values_fuzzed(300, seed=1029)


@pytest.mark.slow
def test_many_values_are_refused_or_can_be_restored():
    values_fuzzed(50_000, seed=5)


@pytest.mark.slow
def test_each_value_alone_is_refused_or_can_be_restored():
    outer = snapshot()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SETTINGS.names:
            for value in VALUES:
                restored_or_refused(with_settings(**{name: value}), outer)
