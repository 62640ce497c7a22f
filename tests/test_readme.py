"""Each code block of the README runs, and its commands are those that CI runs."""

from __future__ import annotations

import re
import sys
import types

import pytest
from conftest import ROOT

from seedscope import snapshot

README = (ROOT / "README.md").read_text()


def test_every_python_block_runs(monkeypatch):
    # A module, as a script is one: the log knows functions by the name of theirs.
    module = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)
    namespace = vars(module)
    before = snapshot()
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 7
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    namespace["unregister"]()
    before.restore()


def test_the_first_screen_ends_with_two_commands():
    commands = re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL)[:2]
    assert [command.count("\n") for command in commands] == [0, 0]
    assert commands[0].endswith("seedscope demo")
    assert commands[1].endswith("-m pytest")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in headings, anchor
