"""Measures item after item so that nothing done is lost: to one that fails, or to a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from seedscope.costs import first_line, in_fresh_process

from .harness import Progress, part

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
) -> Done:
    """Return what `measure` finds of every item; each group has a fresh process.

    What is found is at once a line of the report's part, and a run with the same `facts`
    that is started again goes on behind it. Of an item that raises, or that its process dies of,
    {"failed": why} is found, and the others go on: in another process, if that one died
    or lost the device.
    """
    file = part(name, folder)
    done = _begin(file, facts)
    bar = Progress(name, sum(map(len, groups.values())), len(done))
    for group, items in groups.items():
        while missing := [item for item in items if (group, item) not in done]:
            try:
                in_fresh_process(_measure_items, measure, group, missing, file, bar)
            except BrokenProcessPool:
                done = _read(file)
                fatal = next(item for item in missing if (group, item) not in done)
                _append(file, group, fatal, {"failed": "the process that measured it died"})
            done = _read(file)
            bar.done = len(done)
    return done


def _measure_items(
    measure: Measure, group: str, items: list[str], file: Path, bar: Progress
) -> None:
    for item in items:
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


def _begin(file: Path, facts: Mapping[str, Any]) -> Done:
    """Return what an interrupted run with the same facts has found; else begin anew."""
    if not file.exists() or file.read_text().partition("\n")[0] != json.dumps(facts):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(facts) + "\n")
    elif not (text := file.read_text()).endswith("\n"):
        file.write_text(text[: text.rindex("\n") + 1])  # its last line was cut short
    return _read(file)


def _read(file: Path) -> Done:
    _, *lines = file.read_text().splitlines()
    return {(group, item): found for group, item, found in map(json.loads, lines)}


def _append(file: Path, group: str, item: str, found: Found) -> None:
    with open(file, "a") as opened:
        opened.write(json.dumps([group, item, found]) + "\n")
