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


PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            assert anchor in {h.lower().replace(" ", "-") for h in headings}, anchor
