"""Flags that torch freezes or loads late."""

from __future__ import annotations

import os

import pytest
import torch

from helpers import run_python


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
def test_inductors_flag_comes_back_even_if_it_is_loaded_inside():
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
