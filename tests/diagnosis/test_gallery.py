"""`diagnose` names operation and cause of programs that differ, and is silent where none does."""

from __future__ import annotations

import re

import pytest
import torch
from differing import EXPECTED
from repeating import REPEATING

from helpers import ROOT
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


# ------------------------------------------------- beside torch's DebugMode, for docs/diagnosis.md

TABLE = ROOT / "docs" / "diagnosis.md"


def seen_by_debug_mode(name):
    """Return what DebugMode says of two runs from one seed, each as the example of its docs."""
    module = pytest.importorskip("torch.utils._debug_mode", reason="torch has no DebugMode")
    mode = module.DebugMode
    expected = EXPECTED[name]
    args, _ = made(expected.make)
    logs = []
    for _ in range(2):
        with seeded(1029, deterministic=False), mode() as one, mode.log_tensor_hashes():
            args[0](*args[1:])
        logs.append(one.logs)
    try:
        found = mode.check_hash_mismatches(*logs)
    except ValueError:
        return "that the runs differ"
    if not found:
        return "nothing"
    base = expected.operation.rstrip("_").removeprefix("aten.").partition(".")[0]
    is_right = expected.operation == "aten." or base in found[0]["call"]
    return "the operation" if is_right else "another operation"


def in_the_documents():
    found = "the operation|another operation|that the runs differ|nothing"
    rows = re.findall(rf"^\| `(\w+)` \|.*\| ({found}) \|$", TABLE.read_text(), re.MULTILINE)
    return dict(rows)


def test_the_documents_list_every_program():
    assert {*in_the_documents()} == {*EXPECTED}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_documents_say_what_debug_mode_finds(name):
    # On a busy machine, threads that race may take turns.
    found = next((f for _ in range(5) if (f := seen_by_debug_mode(name)) != "nothing"), "nothing")
    assert in_the_documents()[name] == found
