"""The remarks of a command: each is printed once, on standard error."""

from __future__ import annotations

import logging
import warnings

from seedscope.cli.remarks import LOGGER, said


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def test_a_remark_is_printed_once_though_the_program_logs_too(capsys, monkeypatch):
    kept, root = Kept(), logging.getLogger()
    monkeypatch.setattr(root, "handlers", [*root.handlers, kept])
    before = (LOGGER.handlers[:], LOGGER.level, LOGGER.propagate)
    with said(says_warnings=True):
        LOGGER.info("3 of them from the log")
        warnings.simplefilter("always")
        for _ in range(2):
            warnings.warn("said twice", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == ("seedscope: 3 of them from the log\nseedscope: said twice\n")
    assert kept.messages == []
    assert (LOGGER.handlers[:], LOGGER.level, LOGGER.propagate) == before
    LOGGER.error("outside of a command")
    assert kept.messages == ["outside of a command"]
    assert capsys.readouterr().err == ""
