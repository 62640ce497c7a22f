"""Modes of determinism: what each sets, and the error of an operation that cannot repeat."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from seedscope import seeded, snapshot


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


def test_an_inner_block_without_determinism_changes_no_setting():
    with seeded(1):
        outer = modes()
        with seeded(2, deterministic=False):
            assert modes() == outer
        with seeded(2, deterministic="warn"):
            assert modes()[0] == 1
        assert modes() == outer


@pytest.mark.parametrize("fill", [None, True, False])
@pytest.mark.parametrize("outside", [True, False])
def test_memory_is_filled_as_the_option_or_else_torch_says(fill, outside):
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
        assert os.environ["PYTHONHASHSEED"] == str((1029 + 2**40) % 4096)
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
def test_the_cublas_workspace_is_set_only_where_torch_needs_it(
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


def test_an_unrepeatable_operation_raises_with_alternatives():
    target, index = torch.zeros(4), torch.tensor([0, 0])
    with (
        pytest.raises(RuntimeError, match="deterministic implementation") as raised,
        seeded(1, replacements=False),
        seeded(2, replacements=False),
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


def test_the_error_of_a_latched_cublas_workspace_is_explained():
    error = RuntimeError(
        "Deterministic behavior was enabled ... set CUBLAS_WORKSPACE_CONFIG=:4096:8"
    )
    with pytest.raises(RuntimeError) as raised, seeded(1):
        raise error
    said = str(raised.value) + "".join(getattr(raised.value, "__notes__", []))
    assert "Set the variable before Python starts: `seedscope run SCRIPT`" in said
