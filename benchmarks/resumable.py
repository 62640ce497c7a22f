"""Measures item after item so that nothing done is lost: to one that fails, or to a stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from seedscope.costs import first_line, in_fresh_process

from .harness import Progress

Found = dict[str, Any]
#: What was found, by group and item.
Done = dict[tuple[str, str], Found]
#: Called with a group and an item, in the process of the group.
Measure = Callable[[str, str], Found]


def measure_all(
    name: str,
    folder: Path,
    facts: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
    measure: Measure,
) -> tuple[Done, Path]:
    """Return what `measure` finds of every item, and the file that holds it.

    Each group has a fresh process. What is found is at once a line of the file, and a run
    with the same `facts`, groups and code that is started again goes on behind it. Of an
    item that raises, or that its process dies of, {"failed": why} is found, and the others
    go on: in another process, if that one died or lost the device.

    Raises:
        SystemExit: another run of the same is at work, or this one was stopped.
        BrokenProcessPool: a process died before it began to measure.
    """
    facts = {**facts, "code": code_digest(), "groups": groups}
    file = part_of(name, folder, facts)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(f"{file}.lock", timeout=0).acquire()
    except Timeout:
        raise SystemExit(f"{name}: another run of the same is at work on {file}") from None
    with lock:
        _mend(file)
        done = _read(file)
        bar = Progress(name, sum(map(len, groups.values())), len(done))
        for group, items in groups.items():
            while missing := [item for item in items if (group, item) not in done]:
                try:
                    in_fresh_process(_measure_items, measure, group, missing, file, bar)
                except KeyboardInterrupt:
                    raise SystemExit(
                        f"{name}: stopped; the same command goes on from here"
                    ) from None
                except BrokenProcessPool:
                    _mend(file)
                    for begun in _begun(file):
                        died = {"failed": "the process that measured it died"}
                        _append(file, group, begun, died)
                    if _read(file) == done:
                        raise  # it died before it began one, and would again
                done = _read(file)
                bar.done = len(done)
    return done, file


def code_digest() -> str:
    """Return a digest of the code that measures: figures of other code are other figures."""
    root = Path(__file__).parents[1]
    files = sorted([*root.glob("benchmarks/*.py"), *root.glob("seedscope/**/*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def part_of(name: str, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Return the file of what is done: runs of other facts have others, and lose nothing."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return folder / f"{name}.{digest}.part.jsonl"


def _measure_items(
    measure: Measure, group: str, items: list[str], file: Path, bar: Progress
) -> None:
    for item in items:
        _append(file, group, item, None)
        try:
            found = measure(group, item)
        except Exception as error:  # whatever it is: it must not cost the others their time
            found = {"failed": f"{type(error).__name__}: {first_line(error)}"}
        _append(file, group, item, found)
        bar.advance(f"{group}, {item}")
        if _device_is_lost():
            break


def _device_is_lost() -> bool:
    """Whether CUDA is of no use to this process any more, as after an illegal access."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _append(file: Path, group: str, item: str, found: Found | None) -> None:
    """Add a line: what was found, or None where the item is only begun."""
    with open(file, "a") as opened:
        opened.write(json.dumps([group, item, found]) + "\n")


def _lines(file: Path) -> list[tuple[str, str, Found | None]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _read(file: Path) -> Done:
    return {(group, item): found for group, item, found in _lines(file) if found is not None}


def _begun(file: Path) -> list[str]:
    """Return the item that the last line begins, if it does."""
    return [item for _, item, found in _lines(file)[-1:] if found is None]


def _mend(file: Path) -> None:
    """Cut off a last line that was not written to its end; make the file if there is none."""
    text = file.read_text() if file.exists() else ""
    file.write_text(text[: text.rfind("\n") + 1])
