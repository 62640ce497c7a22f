"""A proof switches torch to warnings for a moment: no other thread, scope or child keeps that."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from test_proof import AVERAGE, PUT, averaging, images, pool

from seedscope import replacements, seeded
from seedscope.replacements.gate import GATE, Gate, Probe
from seedscope.settings.deterministic_algorithms import SETTINGS, WARN


def test_another_thread_stays_strict_while_torchs_own_kernel_runs():
    """The proof switches torch to warnings for a moment, in the whole process."""
    inside, done = threading.Event(), threading.Event()
    results: list[Any] = []

    def agrees(result: Any, native: Any, *args: Any) -> bool:
        return AVERAGE.agrees(result, native, *args)

    def slow(*args: Any) -> torch.Tensor:
        if torch.get_deterministic_debug_mode() == 1:
            raise AssertionError("a replacement ran under warnings")
        return AVERAGE.function(*args)

    def other() -> None:
        inside.wait(10)
        results.append(torch.zeros(8).put_(torch.tensor([1, 1]), torch.tensor([2.0, 3.0])))
        done.set()

    with averaging(slow):
        native = torch.library.get_kernel(AVERAGE.operation, "CPU").call_boxed

        def waiting(keyset: Any, *args: Any) -> Any:
            if torch.get_deterministic_debug_mode() == 1:
                inside.set()
                assert not done.wait(0.5)  # the other thread waits for the end of the proof
            return native(keyset, *args)

        library = torch.library.Library("aten", "IMPL")
        library.impl(
            "_adaptive_avg_pool2d_backward", waiting, "CPU", with_keyset=True, allow_override=True
        )
        thread = threading.Thread(target=other)
        thread.start()
        with seeded(1029) as scope:
            pool(images())
            thread.join()
            assert scope.replaced == {AVERAGE.operation: 1, PUT: 1}
        replacements.remove()
        del library
    assert results[0].tolist() == [0, 3, 0, 0, 0, 0, 0, 0]


@contextlib.contextmanager
def native_kernel_in_another_thread() -> Iterator[None]:
    """Let another thread be in torch's own kernel, under warnings, for a moment longer."""
    inside, leave = threading.Event(), threading.Event()

    def call() -> None:
        inside.set()
        assert leave.wait(10)

    thread = threading.Thread(target=GATE.native, args=(call, ""))
    thread.start()
    assert inside.wait(10)
    assert torch.get_deterministic_debug_mode() == 1
    threading.Timer(0.2, leave.set).start()
    yield
    thread.join()


def test_a_scope_that_opens_or_closes_meanwhile_restores_the_right_mode():
    before = torch.get_deterministic_debug_mode()
    with seeded(1029):
        with native_kernel_in_another_thread():
            with seeded(1):
                assert torch.get_deterministic_debug_mode() == 2
            assert torch.get_deterministic_debug_mode() == 2
        outer = native_kernel_in_another_thread()
        outer.__enter__()
    assert torch.get_deterministic_debug_mode() == before
    outer.__exit__(None, None, None)
    assert torch.get_deterministic_debug_mode() == before


def test_what_must_not_be_disturbed_waits_for_the_end_of_a_proof():
    before, modes = torch.get_deterministic_debug_mode(), []
    with native_kernel_in_another_thread():
        GATE.undisturbed(lambda: modes.append(torch.get_deterministic_debug_mode()))
    assert modes == [before]


def test_a_scope_writes_the_mode_after_the_proof_of_another_thread():
    [setting] = [one for one in SETTINGS if one.name == "deterministic_algorithms"]
    with seeded(1029):
        with native_kernel_in_another_thread():
            setting.write(WARN)
        assert torch.get_deterministic_debug_mode() == WARN


def test_what_a_proof_has_overlapped_is_done_again():
    calls: list[int] = []

    def call() -> int:
        calls.append(torch.get_deterministic_debug_mode())
        if len(calls) == 1:  # a whole proof in another thread
            thread = threading.Thread(target=GATE.native, args=(lambda: None, ""))
            thread.start()
            thread.join()
        return len(calls)

    assert GATE.undisturbed(call) == 2


def test_a_mode_written_while_a_proof_begins_stays(monkeypatch):
    """The proof has read the mode, and has yet to switch to warnings."""
    is_read, is_written = threading.Event(), threading.Event()
    get = torch.get_deterministic_debug_mode

    def read() -> int:
        mode = get()
        if threading.current_thread() is proof:
            is_read.set()
            is_written.wait(0.5)
        return mode

    before = get()
    monkeypatch.setattr(torch, "get_deterministic_debug_mode", read)
    proof = threading.Thread(target=GATE.native, args=(lambda: None, ""))
    proof.start()
    try:
        assert is_read.wait(10)
        GATE.undisturbed(lambda: torch.set_deterministic_debug_mode("error"))
        is_written.set()
        proof.join()
        assert get() == 2
    finally:
        torch.set_deterministic_debug_mode(before)


def test_a_mode_read_while_a_proof_begins_is_read_again():
    """The proof is announced just after a look that has seen none."""
    inside, leave, proofs = threading.Event(), threading.Event(), []

    class Looked(Gate):
        """A gate at which a proof begins as soon as this thread has seen that none runs."""

        @property
        def _probe(self) -> Any:
            held = self._held
            if not proofs and threading.current_thread() is threading.main_thread():
                proofs.append(threading.Thread(target=self.native, args=(begun, "")))
                proofs[0].start()
                assert inside.wait(10)
            return held

        @_probe.setter
        def _probe(self, probe: Any) -> None:
            self._held = probe

    def begun() -> None:
        inside.set()
        assert leave.wait(10)

    def read() -> int:
        mode = torch.get_deterministic_debug_mode()
        leave.set()
        proofs[0].join()
        return mode

    assert Looked().undisturbed(read) == torch.get_deterministic_debug_mode() == 0


def test_an_operation_that_reads_the_mode_as_a_proof_ends_is_replaced(monkeypatch):
    get, inside, leave = torch.get_deterministic_debug_mode, threading.Event(), threading.Event()

    def call() -> None:
        inside.set()
        leave.wait(0.5)

    def read() -> int:
        mode = get()
        if threading.current_thread() is threading.main_thread():
            leave.set()
            proof.join()
        return mode

    with seeded(1029):
        proof = threading.Thread(target=GATE.native, args=(call, ""))
        proof.start()
        assert inside.wait(10)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_deterministic_debug_mode", read)
            assert GATE.replaces()
    assert not GATE.replaces()


@pytest.mark.parametrize("interrupts", [{1}, {2}, {1, 2}])
def test_an_interrupt_while_the_mode_is_put_back_leaves_no_thread_waiting(interrupts, monkeypatch):
    mode, undo, calls = torch.get_deterministic_debug_mode(), Probe.undo, []

    def interrupted(probe: Probe) -> None:
        undo(probe)
        calls.append(probe)
        if len(calls) in interrupts:
            raise KeyboardInterrupt

    monkeypatch.setattr(Probe, "undo", interrupted)
    with pytest.raises(KeyboardInterrupt):
        GATE.native(lambda: None, "")
    assert torch.get_deterministic_debug_mode() == mode
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(GATE.undisturbed, torch.get_deterministic_debug_mode)
        assert found.result(10) == mode


def test_the_warnings_of_other_threads_are_their_own():
    filters = [*warnings.filters]
    with native_kernel_in_another_thread():
        with pytest.warns(DeprecationWarning, match="told here"):
            warnings.warn("told here", DeprecationWarning, stacklevel=1)
        copied = warnings.catch_warnings()
        copied.__enter__()
    copied.__exit__(None, None, None)
    assert [*warnings.filters] == filters


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_that_forks_meanwhile_has_a_child_with_the_right_mode():
    mode, filters = torch.get_deterministic_debug_mode(), [*warnings.filters]
    with native_kernel_in_another_thread():
        child = os.fork()
        if child == 0:
            is_free = GATE.lock.acquire(blocking=False)
            is_as_before = torch.get_deterministic_debug_mode(), [*warnings.filters]
            os._exit(0 if is_free and is_as_before == (mode, filters) else 1)
        assert os.waitpid(child, 0)[1] == 0
    with seeded(1029) as scope:
        torch.zeros(8).put_(torch.tensor([1, 1]), torch.tensor([2.0, 3.0]))
        assert scope.replaced == {PUT: 1}
    assert torch.get_deterministic_debug_mode() == mode
