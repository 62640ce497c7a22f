"""The contract of every setting, and what is particular to some."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch
from conftest import run_python
from hypothesis import given, settings
from hypothesis import strategies as st

from seedscope import Snapshot, seeded, snapshot
from seedscope.settings import base, environment
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
    "inductor.deterministic": "inductor is not loaded; see the tests below",
}


def other_value(name: str, value):
    if name in OTHERS:
        return OTHERS[name]
    if name.startswith("fp32_precision"):
        return "ieee" if value != "ieee" else "tf32"
    return tuple(not flag for flag in value) if isinstance(value, tuple) else not value


@pytest.fixture(params=SETTINGS.names)
def setting(request):
    """A setting that has another value than usual outside."""
    name = request.param
    if name in UNCHANGEABLE:
        pytest.skip(UNCHANGEABLE[name])
    outer = snapshot()
    yield SETTINGS._settings[name]
    outer.restore()


def read_publicly(name: str):
    backends = torch.backends
    readers = {
        "deterministic_algorithms": torch.get_deterministic_debug_mode,
        "fill_uninitialized_memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,
        "matmul.precision": torch.get_float32_matmul_precision,
        "attention.flash": backends.cuda.flash_sdp_enabled,
        "attention.mem_efficient": backends.cuda.mem_efficient_sdp_enabled,
        "attention.math": backends.cuda.math_sdp_enabled,
        "attention.cudnn": backends.cuda.cudnn_sdp_enabled,
        "attention.math_reduced_precision": backends.cuda.fp16_bf16_reduction_math_sdp_allowed,
        "fp32_precision.generic.all": lambda: backends.fp32_precision,
        "fp32_precision.cuda.all": lambda: backends.cudnn.fp32_precision,
        "fp32_precision.mkldnn.all": lambda: backends.mkldnn.fp32_precision,
        "fp32_precision.cuda.matmul": lambda: backends.cuda.matmul.fp32_precision,
        "fp32_precision.cuda.conv": lambda: backends.cudnn.conv.fp32_precision,
        "fp32_precision.cuda.rnn": lambda: backends.cudnn.rnn.fp32_precision,
        "fp32_precision.mkldnn.matmul": lambda: backends.mkldnn.matmul.fp32_precision,
        "fp32_precision.mkldnn.conv": lambda: backends.mkldnn.conv.fp32_precision,
        "fp32_precision.mkldnn.rnn": lambda: backends.mkldnn.rnn.fp32_precision,
    }
    if name in readers:
        return readers[name]()
    group, _, flag = name.partition(".")
    if not flag:
        return os.environ.get(name)
    holder = backends.cuda.matmul if group == "matmul" else getattr(backends, group)
    value = getattr(holder, flag)
    if hasattr(holder, "__getattr__") and flag.endswith("reduction"):
        try:
            return value, getattr(holder, flag + "_split_k")
        except AttributeError:  # older torch has one value for both
            return value, value
    return value


def test_every_setting_reads_what_the_public_interface_says(setting):
    name, read, write = setting
    assert read() == read_publicly(name)
    write(other_value(name, read()))
    assert read() == read_publicly(name)


def test_a_setting_that_the_block_changes_comes_back(setting):
    name, read, write = setting
    outside = read()
    with seeded(1029):
        inside = read()
        write(other_value(name, inside))
        assert read() != inside
    assert read() == outside


def test_an_unusual_outer_value_comes_back(setting):
    name, read, write = setting
    write(other_value(name, read()))
    before, outside = snapshot(), read()
    with seeded(1029):
        write(other_value(name, read()))
    assert read() == outside
    assert before.changed(snapshot()) == ()


def test_a_change_is_named(setting):
    name, read, write = setting
    before = snapshot()
    write(other_value(name, read()))
    assert name in before.changed(snapshot())
    before.restore()
    assert before.changed(snapshot()) == ()


def test_a_setting_survives_saving(setting, tmp_path):
    name, read, write = setting
    write(other_value(name, read()))
    saved = read()
    torch.save(snapshot().state_dict(), tmp_path / "state.pt")
    write(other_value(name, read()))
    Snapshot.from_state_dict(torch.load(tmp_path / "state.pt", weights_only=True)).restore()
    assert read() == saved


@pytest.mark.parametrize("value", [None, "", "5", "größe"])
def test_the_environments_own_dictionary_and_the_public_one_agree(value):
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


def test_a_plain_dictionary_in_the_place_of_the_environment_is_left_alone(monkeypatch):
    monkeypatch.setattr(os, "environ", {"PYTHONHASHSEED": "3"})
    with seeded(1029):
        assert environment.read_variable("PYTHONHASHSEED") == "1029"
    assert os.environ == {"PYTHONHASHSEED": "3"}


def test_only_settings_that_are_marked_change_others(setting):
    name, read, write = setting
    before = SETTINGS.capture()
    write(other_value(name, read()))
    now = zip(SETTINGS.names, before, SETTINGS.capture(), strict=True)
    changed = {other for other, was, is_now in now if was != is_now and other != name}
    entangled = {o.name for o in SETTINGS._settings.values() if isinstance(o, base.Entangled)}
    # Where inductor is not loaded its flag is the variable, and writing it does nothing.
    assert changed <= (entangled if name in entangled else {"inductor.deterministic"})


def modes():
    return (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.backends.mkldnn.deterministic,
    )


@pytest.mark.parametrize(
    ("mode", "inside"),
    [
        (True, (2, True, False, True)),
        ("warn", (1, True, False, True)),
        ("cudnn", (0, True, False, False)),
        (False, (0, False, True, False)),
    ],
)
def test_each_mode_sets_what_it_says(mode, inside):
    before = snapshot()
    torch.backends.cudnn.benchmark = True
    outside = modes()
    with seeded(1029, deterministic=mode):
        assert modes() == inside
        torch.backends.cudnn.benchmark = True
        torch.set_deterministic_debug_mode(1)
        torch.backends.mkldnn.deterministic = True
    assert modes() == outside
    before.restore()


def test_nested_without_determinism_leaves_the_outer_blocks_settings():
    with seeded(1):
        outer = modes()
        with seeded(2, deterministic=False):
            assert modes() == outer
        with seeded(2, deterministic="warn"):
            assert modes()[0] == 1
        assert modes() == outer


@pytest.mark.parametrize("fill", [None, True, False])
@pytest.mark.parametrize("outside", [True, False])
def test_filling_of_memory_is_as_asked_or_as_it_is_set(fill, outside):
    before = snapshot()
    torch.utils.deterministic.fill_uninitialized_memory = outside
    with seeded(1029, fill_uninitialized_memory=fill):
        inside = torch.utils.deterministic.fill_uninitialized_memory
    assert inside == (outside if fill is None else fill)
    assert torch.utils.deterministic.fill_uninitialized_memory == outside
    before.restore()


@pytest.mark.parametrize("outside", [None, "", "0", "123"])
def test_children_get_the_hash_seed_and_unset_differs_from_empty(outside, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if outside is not None:
        monkeypatch.setenv("PYTHONHASHSEED", outside)
    code = [sys.executable, "-c", "print(hash('seedscope'))"]
    with seeded(1029 + 2**40):
        assert os.environ["PYTHONHASHSEED"] == str((1029 + 2**40) % 2**32)
        hashes = {subprocess.check_output(code) for _ in range(3)}
    assert len(hashes) == 1
    assert os.environ.get("PYTHONHASHSEED") == outside


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        (None, ":4096:8"),
        ("", ":4096:8"),
        (":0:0", ":4096:8"),
        (":16:8", ":16:8"),
        (":4096:8", ":4096:8"),
    ],
)
@pytest.mark.parametrize("version", ["2.6.0", "2.10.0+cu128", "2.11.0+cu130", "2.14.1", "3.0.0a0"])
def test_the_cublas_workspace_is_set_where_torch_asks_for_it_and_it_is_not(
    outside, inside, version, monkeypatch
):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if outside is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", outside)
    asks = version in ("2.6.0", "2.10.0+cu128")
    with seeded(1029):
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (inside if asks else outside)
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == outside


def test_an_operation_that_cannot_repeat_raises_with_the_ways_on():
    target, index = torch.zeros(4), torch.tensor([0, 0])
    with (
        pytest.raises(RuntimeError, match="deterministic implementation") as raised,
        seeded(1),
        seeded(2),
    ):
        target.put_(index, torch.ones(2))
    said = str(raised.value) + "".join(getattr(raised.value, "__notes__", []))
    assert said.count('deterministic="warn"') == 1
    with pytest.warns(UserWarning, match="deterministic"), seeded(1, deterministic="warn"):
        target.put_(index, torch.ones(2))
    with seeded(1, deterministic=False):
        target.put_(index, torch.ones(2))


def test_a_really_nondeterministic_operation_repeats_inside():
    index = torch.randint(0, 100, (200_000,), generator=torch.Generator().manual_seed(0))
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(1))

    def accumulate():
        return torch.zeros(100).index_put_((index,), values, accumulate=True)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with seeded(1029):
        results = {accumulate().numpy().tobytes() for _ in range(20)}
    torch.set_num_threads(threads)
    assert len(results) == 1


def test_old_torch_that_latched_its_cublas_workspace_is_explained():
    error = RuntimeError(
        "Deterministic behavior was enabled ... set CUBLAS_WORKSPACE_CONFIG=:4096:8"
    )
    with pytest.raises(RuntimeError) as raised, seeded(1):
        raise error
    said = str(raised.value) + "".join(getattr(raised.value, "__notes__", []))
    assert "Set the variable before Python starts: `seedscope run SCRIPT`" in said


def test_flags_are_set_and_restored_where_torch_has_frozen_them():
    run_python(
        """
import torch
from seedscope import seeded, snapshot
torch.backends.cudnn.benchmark = True
torch.backends.disable_global_flags()
before = snapshot()
with seeded(1029):
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
assert torch.backends.cudnn.benchmark and before == snapshot()
"""
    )


@pytest.mark.skipif(
    not hasattr(torch._C._dynamo.eval_frame, "set_code_exec_strategy"),
    reason="before torch 2.7 the compiler is loaded with the toolkit, and has no such flag",
)
def test_inductors_flag_is_restored_when_it_is_loaded_and_when_it_gets_loaded_inside():
    run_python(
        """
import sys, torch
from seedscope import seeded, snapshot
with seeded(1029):
    assert "torch._inductor.config" not in sys.modules
    import torch._inductor.config as config
    assert config.deterministic, "loaded inside a block, it must be deterministic there"
assert not config.deterministic
before = snapshot()
with seeded(1029):
    assert config.deterministic
    torch.use_deterministic_algorithms(False)
    assert not config.deterministic
assert not config.deterministic and before == snapshot()
config.deterministic = True
with seeded(1029):
    torch.use_deterministic_algorithms(False)
assert config.deterministic
""",
        env={**os.environ, "PYTHONPATH": "."},
    )


# Precision: two interfaces, which torch does not let be mixed freely

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
    """What a user sees through both interfaces; a read that raises is seen too."""

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


def test_one_setting_that_cannot_be_written_does_not_stop_the_others():
    values = {"a": 1, "b": 2, "c": 3}

    def refuse(value):
        raise OSError("read only")

    group = base.Settings(
        base.Setting(
            name, lambda name=name: values[name], refuse if name == "b" else _put(values, name)
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
