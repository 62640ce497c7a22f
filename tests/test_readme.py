"""Each code block of the README and of docs/ runs, and CI runs the README's commands."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from helpers import ROOT
from seedscope import snapshot

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CHANGELOG.md", *DOCS]


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def headings_of(page: Path) -> list[str]:
    return re.findall(r"^#+ .*$", without_code(page), re.M)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub and MyST give to the headings of a page."""
    titles = [heading.lstrip("#").strip().lower() for heading in headings_of(page)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


WITH_CODE = [page for page in [README, *DOCS] if blocks_of(page, "python")]


def test_most_pages_have_code():
    assert README in WITH_CODE
    assert len(WITH_CODE) >= 9
    assert sum(len(blocks_of(page, "python")) for page in WITH_CODE) >= 30


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_every_python_block_runs(page, monkeypatch):
    # Run the blocks in a module, as a script is: the log names a function by its module.
    module = types.ModuleType("page_" + page.stem.lower().replace("-", "_"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    before = snapshot()
    try:
        for block in blocks_of(page, "python"):
            exec(compile(block, page.name, "exec"), vars(module))
    finally:
        before.restore()


def test_the_first_screens_have_two_commands():
    commands = [block.rstrip("\n") for block in blocks_of(README, "bash")[:2]]
    assert [command.count("\n") for command in commands] == [0, 0]
    assert commands[0].endswith("seedscope demo")
    assert commands[1].endswith("-m pytest")


def test_the_readme_is_short():
    lines = README.read_text().splitlines()
    assert len(lines) <= 120
    # A page does not show the targets of links. A command keeps one line, so that CI finds it.
    shown = [re.sub(r"\]\([^)]*\)", "]", line) for line in lines]
    assert all(len(line) <= 120 for line in shown if not line.startswith("python3 -m venv"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", without_code(page)):
        if target.startswith("https://"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file), anchor


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_a_page_has_one_title_and_each_heading_once(page):
    headings = headings_of(page)
    assert page.read_text().startswith("# ")
    assert [heading for heading in headings if heading.startswith("# ")] == headings[:1]
    assert len(anchors_of(page)) == len(headings)


def test_the_index_lists_every_page():
    index = ROOT / "docs" / "index.md"
    listed = re.findall(r"^- \[[^]]+\]\(([^)]*\.md)\)", index.read_text(), re.M)
    assert sorted(listed) == sorted(
        ["../CHANGELOG.md", *(page.name for page in DOCS if page != index)]
    )


def test_every_known_issue_says_why_and_what_to_do():
    page = (ROOT / "docs" / "known-issues.md").read_text()
    _, *issues = re.split(r"^## ", page, flags=re.M)
    assert len(issues) >= 40
    for issue in issues:
        title, seen, *rest = issue.split("\n\n")
        assert not seen.startswith("**"), title
        labels = re.findall(r"^\*\*(Why|What to do)\.\*\* ", "\n".join(rest), re.M)
        assert labels == ["Why", "What to do"], title
