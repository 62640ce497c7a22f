"""The file of a run: the result of each item, complete on disk after each item."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .harness import progress
from .items import Found, Item


def code_digest() -> str:
    """Return a digest of the code that measures: other code may give other figures."""
    root = Path(__file__).parents[1]
    files = sorted([*root.glob("benchmarks/**/*.py"), *root.glob("seedscope/**/*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


class Record:
    """A JSON file with the facts of a run and the results, by group and name.

    The file is replaced as a whole after each item, so that it can be read at any moment,
    even after the run was killed.
    """

    def __init__(self, file: Path, facts: Found, content: Found | None = None) -> None:
        self.file = file
        self.code = code_digest()
        self.content = content or {**facts, "found": {}}

    @property
    def found(self) -> dict[str, dict[str, Found]]:
        found: dict[str, dict[str, Found]] = self.content["found"]
        return found

    def is_done(self, item: Item) -> bool:
        """Return whether the item need not be measured again.

        An item that was cut off is measured again; an item that failed, if the code has changed.
        """
        found = self.before(item)
        if not found or "cut_off" in found:
            return False
        outcomes = {test["outcome"] for test in found.get("tests", {}).values()}
        is_fine = "failed" not in found and outcomes <= {"passed", "skipped"}
        return is_fine or found["code"] == self.code

    def before(self, item: Item) -> Found:
        """Return a copy of the item's result in the record."""
        return {**self.found.get(item.group, {}).get(item.name, {})}

    def keep(self, item: Item, found: Found) -> None:
        """Replace the result of `item`, and write the file.

        If the file cannot be written, the method prints a message; the next call tries again.
        """
        try:
            json.dumps(found, allow_nan=False)
        except (TypeError, ValueError) as error:
            found = {"failed": f"what was found is not JSON: {error}"}
        self.found.setdefault(item.group, {})[item.name] = found | {"code": self.code}
        try:
            self.write()
        except OSError as error:
            progress(f"{self.file} could not be written: {error}")

    def write(self, indent: int | None = None) -> None:
        """Replace the file; `indent` makes the file readable, but is slow."""
        new = self.file.with_suffix(".new")
        try:
            new.write_text(json.dumps(self.content, indent=indent) + "\n")
            os.replace(new, self.file)
        except OSError:
            new.unlink(missing_ok=True)
            raise


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other runs from the record `file`, from before the read until after the last write.

    Raises:
        SystemExit: another run works on the file.
        OSError: the folder cannot be made or written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    path = file.with_suffix(".lock")
    try:
        lock = FileLock(path, timeout=0).acquire()
    except Timeout:
        raise SystemExit(f"another run is at work on {file}") from None
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def read(file: Path) -> dict[str, Any]:
    """Return the content of a record's file.

    Raises:
        ValueError: the file is not a record; the message is one line.
    """
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict) or not _is_found(content.get("found")):
        raise ValueError(f"{file} holds no figures of a benchmark run")
    return content


def _is_found(found: Any) -> bool:
    """Return whether `found` has the form that `Record.keep` writes."""
    return isinstance(found, dict) and all(
        isinstance(items, dict) and all(map(_is_item, items.values())) for items in found.values()
    )


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("code"), str):
        return False
    tests = item.get("tests", {})
    return (
        _are_mappings(item.get("measurements", []))
        and all(isinstance(item.get(name, {}), dict) for name in ("modes", "tests", "calls"))
        and all(isinstance(test, dict) and "outcome" in test for test in tests.values())
        and all(isinstance(item.get(name, 0.0), float | int) for name in ("took_s", "spare_s"))
    )


def _are_mappings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def failures(content: Found, groups: Iterable[str]) -> list[str]:
    """Return a sentence for each reason of failure in the groups: the items, and the reason."""
    found: dict[str, list[str]] = {}
    for group in groups:
        for name, item in content["found"].get(group, {}).items():
            if "failed" in item:
                found.setdefault(item["failed"], []).append(f"{name} ({group})")
    return [f"{'; '.join(names)}: {why}" for why, names in found.items()]
