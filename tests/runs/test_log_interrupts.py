"""Interrupts of an append: its lock is free at once, and no later line is lost."""

from __future__ import annotations

import pytest

from interrupts import Fault, FaultAt
from seedscope import seeded
from seedscope.runs import files
from seedscope.runs import log as run_log


@pytest.mark.parametrize("error", [Fault, TimeoutError])
def test_an_append_after_an_interrupted_one_does_not_wait_for_its_lock(log, error, monkeypatch):
    def append():
        try:
            log.append("begin", {"seed": 1})
        except error:  # its traceback holds the frames, and what they hold
            log.append("end", {"seed": 2})
            raise

    monkeypatch.setattr(files, "_PATIENCE_S", 0)
    for place in range(1, 100_000):
        fault = FaultAt(place, error, event="opcode")
        happened = fault.run(append)
        assert not log.lost, fault.where
        if not happened:
            break
    assert place > 100


def test_a_timeout_of_the_system_is_told_of(log, monkeypatch):
    def fails(*_):
        raise OSError(110, "Connection timed out")  # of a network file system; a TimeoutError

    monkeypatch.setattr(files, "_append", fails)
    with pytest.warns(RuntimeWarning, match="could not be logged"), seeded(3, log=log):
        pass


def test_a_queue_that_an_interrupt_has_left_loses_no_line(log):
    run_log._appending.queue = []
    with seeded(3, log=log):
        pass
    assert len([*log]) == 1
