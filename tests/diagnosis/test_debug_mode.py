"""What torch's DebugMode says of the same programs, for the table in docs/diagnosis.md."""

from __future__ import annotations

import re

import pytest
import torch
from differing import EXPECTED
from test_gallery import made

from helpers import ROOT
from seedscope import seeded

debug_mode = pytest.importorskip("torch.utils._debug_mode", reason="torch has no DebugMode")

TABLE = ROOT / "docs" / "diagnosis.md"


def seen_by_debug_mode(name):
    """Return what DebugMode says of two runs from one seed, each as the example of its docs."""
    mode = debug_mode.DebugMode
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


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_documents_list_every_program():
    assert {*in_the_documents()} == {*EXPECTED}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_documents_say_what_debug_mode_finds(name):
    assert in_the_documents()[name] == seen_by_debug_mode(name)
