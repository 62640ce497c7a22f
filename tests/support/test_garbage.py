"""A look at another thread's frames, in which no garbage is collected where that would crash."""

from __future__ import annotations

import gc
import operator
import sys
from functools import partial

import pytest

from seedscope.support.garbage import uncollected


def test_no_garbage_is_collected_during_a_look_and_the_users_choice_is_back_after_it(monkeypatch):
    for version, is_safe in ((3, 11), False), ((3, 12), True):
        monkeypatch.setattr(sys, "version_info", version)
        assert uncollected(gc.isenabled) is is_safe
        assert gc.isenabled()
        with pytest.raises(ZeroDivisionError):
            uncollected(partial(operator.truediv, 1, 0))
        assert gc.isenabled()
        gc.disable()
        try:
            assert uncollected(gc.isenabled) is False
            assert not gc.isenabled()
        finally:
            gc.enable()
