"""How replacements are registered with torch, and taken out."""

from __future__ import annotations

import pytest
import torch
from test_mechanism import PUT, put

from helpers import run_python
from seedscope import replacements, seeded
from seedscope.replacements import counts, kernels, registry
from seedscope.replacements.agreement import equal
from seedscope.replacements.counts import What
from seedscope.replacements.gate import GATE
from seedscope.replacements.registry import Replacement


def test_remove_takes_everything_out_and_the_next_scope_registers_anew():
    with seeded(1029), pytest.raises(RuntimeError, match="leave it before"):
        replacements.remove()
    replacements.remove()
    assert not kernels._libraries
    assert not torch._C._dispatch_has_kernel_for_dispatch_key(PUT, "BackendSelect")
    with seeded(1029, replacements=False):
        assert not kernels._libraries
    with seeded(1029) as scope:
        put()
        assert scope.replaced == {PUT: 1}


def test_torchs_own_kernel_stays_in_its_place():
    """Called in another way, it would hold Python's lock, and stop all other threads."""
    with seeded(1029):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(PUT, "BackendSelect")
        assert "RegisterCPU" in repr(torch.library.get_kernel(PUT, "CPU"))


def test_a_process_without_a_strict_scope_has_nothing_registered():
    run_python(
        """
import seedscope
from seedscope import seeded, snapshot
with seeded(1, deterministic="warn"), seeded(2, deterministic=False):
    snapshot().restore()
with seeded(1, replacements=False):
    pass
from seedscope.replacements import kernels
assert not kernels._libraries
with seeded(1):
    pass
assert kernels._libraries
seedscope.replacements.remove()
assert not kernels._libraries
"""
    )


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")
def test_an_interrupted_registration_is_completed_by_the_next_scope(monkeypatch):
    replacements.remove()
    register, calls = kernels._register, []

    def interrupted(*args):
        library = register(*args)
        calls.append(library)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return library

    monkeypatch.setattr(kernels, "_register", interrupted)
    with pytest.raises(KeyboardInterrupt), seeded(1029):
        pass
    assert not GATE.is_open
    with seeded(1029) as scope:
        assert put().tolist()[:2] == [1, 3]
        assert scope.replaced == {PUT: 1}
    replacements.remove()
    calls.clear()
    assert put().tolist()[:2] == [1, 3]


def test_what_another_thread_adds_during_a_registration_is_registered_next(monkeypatch):
    replacements.remove()
    before, is_built = dict(registry._added), kernels.is_built
    [own] = [one for (name, _), one in registry.replacements().items() if name == PUT][:1]

    def adds(device: str) -> bool:
        if (PUT, "cpu") not in registry._added:
            registry.add(own._replace(version=2, devices=("cpu",)))
            kernels.renew()
        return is_built(device)

    try:
        monkeypatch.setattr(kernels, "is_built", adds)
        with seeded(1029):
            put()
        earlier = counts.totals()
        with seeded(1029):
            put()
        assert counts.since(earlier, {}) == {What(PUT, 2): 1}
    finally:
        replacements.remove()
        registry._added.clear()
        registry._added.update(before)


def test_a_process_that_forks_replaces_in_the_child_too():
    run_python(
        """
import os, torch
from seedscope import seeded
def put():
    with seeded(1) as scope:
        torch.zeros(8).put_(torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 3.0]))
        return scope.replaced
assert put() == {"aten::put_": 1}
pid = os.fork()
if pid == 0:
    os._exit(0 if put() == {"aten::put_": 1} else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    )


def test_an_operation_without_a_kernel_for_the_device_is_left_out():
    """torch has some for the CPU alone, and a scope opens all the same."""
    before = dict(registry._added)
    try:
        registry.add(Replacement("aten::_cudnn_rnn", print, equal, devices=("cpu",)))
        kernels.renew()
        with seeded(1029) as scope:
            put()
            assert scope.replaced == {PUT: 1}
        assert "aten::_cudnn_rnn" not in kernels.available()["cpu"]
    finally:
        replacements.remove()
        registry._added.clear()
        registry._added.update(before)
