"""A function of the user: which changes of it are noticed, and where it is looked for."""

from __future__ import annotations

import os

import pytest

from helpers import run_python
from seedscope.support.user_function import digest_of, load_function


@pytest.mark.parametrize("rate", [0.2, "0.1", (0.1,), [0.1], {"rate": 0.1}, {0.1}, lambda: 0.1])
def test_another_default_is_another_function(rate):
    def f(seed, rate=0.1):
        return seed * rate

    before = digest_of(f)
    assert before == digest_of(f)
    f.__defaults__ = (rate,)
    assert digest_of(f) != before


def test_another_keyword_default_is_another_function():
    def f(seed, *, rate=0.1):
        return seed * rate

    before = digest_of(f)
    f.__kwdefaults__["rate"] = 0.2
    assert digest_of(f) != before


def test_a_default_that_is_an_object_keeps_the_digest():
    def f(seed, own=None):
        return seed

    found = set()
    for own in (object(), object()):
        f.__defaults__ = (own,)
        found.add(digest_of(f))
    assert len(found) == 1


def test_a_digest_does_not_follow_the_hash_seed():
    code = """
from seedscope.support.user_function import digest_of, load_function
def f(seed, names=frozenset({"a", "b", "c"})):
    return ("a" in {"a", "b", "c", "d"}, lambda: "x" in {"x", "y", "z"})
print(digest_of(f))
"""
    found = {run_python(code, env=os.environ | {"PYTHONHASHSEED": str(seed)}) for seed in range(4)}
    assert len(found) == 1


def test_a_package_without_a_file_is_named_without_one(tmp_path, monkeypatch):
    (tmp_path / "a_namespace").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("a_namespace:nothing", "sys:nothing"):
        with pytest.raises(LookupError, match=r"has no 'nothing' \(no file\)"):
            load_function(name)
