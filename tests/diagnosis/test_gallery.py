"""`diagnose` names operation and cause of programs that differ, and is silent where none does."""

from __future__ import annotations

import pytest
import torch
from differing import EXPECTED
from repeating import REPEATING

from seedscope import diagnose, seeded


def made(make):
    """Return the function with its arguments, and the options of `diagnose`."""
    with seeded(1):
        found = make()
    *args, last = found
    return (args, last) if isinstance(last, dict) else (found, {})


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_the_gallery_is_large_enough():
    assert len(EXPECTED) >= 24
    assert len(REPEATING) >= len(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_report_names_operation_and_cause(name):
    expected = EXPECTED[name]
    args, options = made(expected.make)
    report = diagnose(*args, seed=1029, **options)
    text = " ".join(str(report).split())
    assert not report.reproducible
    found = report.first_divergence
    named = found.operation or "what"
    assert named.startswith(expected.operation), text
    assert report.cause.startswith(expected.cause), text
    for words in expected.words:
        assert words in text, f"{words!r} not in {text}"


@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning", "ignore:.*prototype:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
@pytest.mark.parametrize("name", REPEATING)
def test_a_program_that_repeats_is_called_reproducible(name):
    args, options = made(REPEATING[name])
    report = diagnose(*args, seed=1029, **options)
    assert report.reproducible, report
    assert not report.error
    assert report.first_divergence is None
