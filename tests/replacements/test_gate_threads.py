"""Blocks of one thread open and close while another thread calls an operation of the list."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from test_mechanism import PUT, put
from test_wrong_formulas import registered_for_a_test

from seedscope import register_replacement, replacements, seeded
from seedscope.replacements import kernels
from seedscope.replacements.gate import GATE, Gate

__all__ = ["registered_for_a_test"]  # a fixture of each test

RESULT = put().tolist()


class Late:
    """torch's own kernel of `put_`, which begins and ends late, as in a thread that was paused."""

    def __init__(self) -> None:
        self.looked, self.begin, self.end = (threading.Event() for _ in range(3))
        self.native = torch.library.get_kernel(PUT, "CPU").call_boxed

    def __call__(self, keyset: Any, *args: Any) -> Any:
        self.looked.set()
        assert self.begin.wait(10)
        try:
            return self.native(keyset, *args)
        finally:
            assert self.end.wait(10)


@contextlib.contextmanager
def called_late() -> Iterator[tuple[Late, Any]]:
    """Let another thread call `put_` after its look at a gate that is closed."""
    with seeded(0):
        pass  # the kernels are registered
    late, library = Late(), torch.library.Library("aten", "IMPL")
    library.impl("put_", late, "CPU", with_keyset=True, allow_override=True)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(put)
        assert late.looked.wait(10)
        yield late, found
    del library
    replacements.remove()


pytestmark = pytest.mark.filterwarnings("ignore:Warning only once for all operators")


def test_a_block_that_opens_after_the_look_replaces_the_operation():
    with called_late() as (late, found):
        late.end.set()
        with seeded(1029) as scope:
            late.begin.set()
            assert found.result(10).tolist() == RESULT
            assert scope.replaced == {PUT: 1}


def test_a_block_that_opens_after_the_look_and_closes_again_leaves_the_operation_to_torch():
    with called_late() as (late, found):
        with seeded(1029) as scope:
            late.begin.set()
            with pytest.raises(TimeoutError):
                found.result(0.2)  # torch's kernel has raised by now
        late.end.set()
        assert found.result(10).tolist() == RESULT
        assert scope.replaced == {}


def test_a_block_without_replacements_that_opens_after_the_look_raises():
    with called_late() as (late, found):
        late.end.set()
        with seeded(1029, replacements=False):
            late.begin.set()
            with pytest.raises(RuntimeError, match="put_ does not have a deterministic"):
                found.result(10)


def _partly(values: torch.Tensor) -> torch.Tensor:
    return torch.tensor([7.0, 0.0])


def test_an_operation_that_may_have_written_before_it_raised_is_not_called_again():
    """torch's own kernel writes a part here, and a user's function would get that."""
    begin, looked = threading.Event(), threading.Event()

    def partly(values: torch.Tensor) -> torch.Tensor:
        values[0] = 7
        looked.set()
        assert begin.wait(10)
        if torch.get_deterministic_debug_mode() == 2:
            raise RuntimeError("partly_ does not have a deterministic implementation")
        return values

    with torch.library._scoped_library("test_gate_threads", "DEF") as library:
        library.define("partly_(Tensor(a!) x) -> Tensor(a!)")
        library.impl("partly_", partly, "CPU")
        register_replacement("test_gate_threads::partly_", device="cpu")(_partly)
        with seeded(0):
            pass  # the kernels are registered
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(torch.ops.test_gate_threads.partly_, torch.zeros(2))
            assert looked.wait(10)
            with seeded(1029) as scope:
                begin.set()
                with pytest.raises(RuntimeError, match="partly_ does not have"):
                    found.result(10)
                assert scope.replaced == {}
        replacements.remove()


def test_a_proof_that_begins_after_the_look_is_waited_for(monkeypatch):
    """Under its warnings torch's own kernel would run, and might not repeat."""
    kind, inside, leave = kernels._kind, threading.Event(), threading.Event()
    proofs: list[threading.Thread] = []

    def call() -> None:
        inside.set()
        assert leave.wait(10)

    def looked(*args: Any) -> Any:
        if not proofs:
            proofs.append(threading.Thread(target=GATE.native, args=(call, "")))
            proofs[0].start()
            assert inside.wait(10)
            threading.Timer(0.2, leave.set).start()
        return kind(*args)

    with seeded(1029) as scope:
        monkeypatch.setattr(kernels, "_kind", looked)
        assert put().tolist() == RESULT
        proofs[0].join()
        assert scope.replaced == {PUT: 1}


def test_an_alert_does_not_stand_if_the_gate_opens_as_the_mode_is_read(monkeypatch):
    gate = Gate()

    def opened(*_: Any) -> int:
        gate.is_open = True
        return 2

    monkeypatch.setattr(gate, "undisturbed", opened)
    assert not gate.alert_stands()


def test_the_gate_is_never_closed_while_the_settings_are_strict(monkeypatch):
    """An operation of another thread would raise in between."""
    write, seen = torch.set_deterministic_debug_mode, []

    def watched(mode: int) -> None:
        seen.append((torch.get_deterministic_debug_mode(), mode, GATE.is_open))
        write(mode)

    monkeypatch.setattr(torch, "set_deterministic_debug_mode", watched)
    with seeded(1):
        with seeded(2, deterministic="warn"):
            assert not GATE.is_open
            with seeded(3):
                assert GATE.is_open
        assert GATE.is_open
    assert not GATE.is_open
    assert seen == [
        (was, now, True) for was, now in ((0, 2), (2, 1), (1, 2), (2, 1), (1, 2), (2, 0))
    ]


def test_a_mode_that_the_program_writes_during_a_proof_stays():
    inside, leave = threading.Event(), threading.Event()
    proof = threading.Thread(target=GATE.native, args=(lambda: (inside.set(), leave.wait(10)), ""))
    proof.start()
    try:
        assert inside.wait(10)
        torch.use_deterministic_algorithms(True)
        leave.set()
        proof.join()
        assert torch.get_deterministic_debug_mode() == 2
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_proof_inside_of_a_proof_leaves_the_outer_one_known():
    """A signal's handler may call an operation at any moment."""
    seen: list[Any] = []

    def disturbed() -> bool:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(GATE._is_disturbed).result()

    def call() -> None:
        GATE.native(lambda: seen.append(disturbed()), "")
        seen.append((disturbed(), torch.get_deterministic_debug_mode()))

    GATE.native(call, "")
    assert seen == [True, (True, 1)]
    assert not disturbed()
    assert torch.get_deterministic_debug_mode() == 0
