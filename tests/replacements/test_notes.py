"""What torch's error says besides, where an operation is not replaced."""

from __future__ import annotations

import pytest

from seedscope import seeded
from seedscope.scope import advice

ALERT = "{} does not have a deterministic implementation, but you set ..."


def note(alert: str, **options: object) -> str:
    with pytest.raises(RuntimeError) as raised, seeded(1029, **options):
        raise RuntimeError(ALERT.format(alert))
    [text] = raised.value.__notes__
    assert 'deterministic="warn"' in text
    assert "register_replacement" in text
    return text


def test_the_note_says_that_there_is_no_replacement():
    assert "no replacement for this operation" in note("kthvalue CUDA")


def test_the_note_names_the_devices_of_a_replacement():
    text = note("adaptive_avg_pool2d_backward_xpu")
    assert "replaces aten::_adaptive_avg_pool2d_backward on cuda; on this device" in text


def test_the_note_says_that_replacements_are_switched_off():
    assert "was switched off" in note("put_", replacements=False)


def test_the_note_names_the_version_of_torch_that_replaces(monkeypatch):
    monkeypatch.setattr(advice, "IS_SUPPORTED", False)
    assert "With torch 2.9 or newer seedscope would run aten::put_" in note("put_")
