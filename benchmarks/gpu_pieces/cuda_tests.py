"""Runs the tests that need a GPU, and keeps the result of each test at once."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from ..items import Found, Item, Slot
from ..record import code_digest

GROUP = "tests"
#: Files with their expected seconds. A hundred operations are diagnosed, with 20 to 50 runs each.
LONG = {"test_documented_operations.py": 60.0}
_TESTS = Path(__file__).parents[2] / "tests"
_MARKED = re.compile(r"^(pytestmark = |@|.*\bmarks=)pytest\.mark\.cuda\b", re.MULTILINE)


def items() -> list[Item]:
    """Return an item for each file with tests that need a GPU; only pytest must be installed."""
    return [_item(path) for path in _files() if path.name not in LONG]


def long_items() -> list[Item]:
    """Return the items of the files that take too long for the piece of the tests."""
    return [_item(path) for path in _files() if path.name in LONG]


def _files() -> list[Path]:
    tests = sorted(_TESTS.rglob("test_*.py"), key=lambda path: path.name)
    return [path for path in tests if _MARKED.search(path.read_text())]


def _item(path: Path) -> Item:
    # Each file has its own process, because pytest loads a module only once.
    seconds = LONG.get(path.name) or _seconds(path.read_text())
    run = partial(_run, path=str(path))
    return Item(GROUP, path.name, run, seconds, f"tests, {path.name}")


def _seconds(text: str) -> float:
    """Return the expected time: a CUDA start takes 5 s on an H200; the demo trains four times."""
    return 2.0 + 5.0 * text.count("run_python(") + 12.0 * text.count("seedscope_command(")


class _Results:
    """A pytest plugin that keeps the outcome of each test."""

    def __init__(self, slot: Slot) -> None:
        self.slot, self.code = slot, code_digest()
        before = slot.before.get("tests", {})
        self.found = {name: test for name, test in before.items() if test["outcome"] == "passed"}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave out the tests that passed in an earlier run."""
        items[:] = [item for item in items if _name(item.nodeid) not in self.found]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._note(nodeid, {"outcome": "not ended"})

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            seconds = round(report.duration, 2)
            self._note(
                report.nodeid,
                {"outcome": report.outcome, "seconds": seconds, "why": _why(report)},
            )

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._note(report.nodeid, {"outcome": "not collected", "why": _why(report)})

    def _note(self, test: str, result: Found) -> None:
        self.found[_name(test)] = result | {"code": self.code}  # other tests may have older code
        self.slot.keep({"tests": self.found})


def _name(test: str) -> str:
    return test.partition("::")[2] or test


def _why(report: Any) -> str:
    """Return the end of pytest's message if a test did not pass."""
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):  # a skipped test: file, line and reason
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longreprtext)[-2000:]


def _run(slot: Slot, path: str) -> Found:
    import pytest

    results = _Results(slot)
    # Without plugins, and without the project's options, which need plugins, the tests run
    # alike whatever is installed. Without the project's filters no warning fails a test.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-m", "cuda", "-o", "addopts=", "-o", "filterwarnings=", "-p", "no:cacheprovider"]
    options += ["--tb=short", "-q"]
    pytest.main([path, *options], plugins=[results])
    return {"tests": results.found}


def brief(test: Found) -> str:
    """Return the line that best says why a test did not pass: the last error, if any."""
    lines = [line for line in test.get("why", "").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(E +)?[\w.]*(Error|Exception)\b", line)]
    return (errors or lines[:1] or [""])[-1].strip()


def results(report: Found) -> dict[str, Found]:
    """Return the outcome of each test, by its name."""
    found: dict[str, Found] = {}
    for name, file in report["found"].get(GROUP, {}).items():
        if "failed" in file:
            found[name] = {"outcome": "failed", "why": file["failed"]}
        found |= file.get("tests", {})
    return found
